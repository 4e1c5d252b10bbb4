#!lua flags=allow-oom
-- Record that a job of a group has succeeded, as `settle` would. The worker holds its message until the group has ended: see
-- `short_outcomes_recorded`. This script runs once for each short job. So the usual case comes first, before the shared parts: the server
-- creates their functions again at each call.
-- KEYS: prefix
-- ARGV: claim, token, result as JSON, event as JSON, claim and token of the next job, or '' and ''
-- Returns 1; or 0 if `settle` must record it: the claim has another holder, or has ended before. Nobody reads the answer.
local call, P = redis.call, KEYS[1]
local claim, token, result, event, next_claim, next_token = unpack(ARGV)
local key = P .. 'claim:' .. claim
local value = redis.pcall('GET', key)
if type(value) == 'string' then -- see `claims`
  local start = 'R\31' .. token .. '\31'
  if string.sub(value, 1, #start) == start then
    local fence = string.match(value, '^[^\31]*\31([^\31]*)', #start + 1)
    call('SETRANGE', key, 0, 'D')
    if result ~= 'null' then call('APPEND', key, '\31' .. result) end -- no result is read as null
    call('XADD', P .. 'journal', '*', 'event', event, 'fence', fence) -- the id of the entry has the time
    return 1
  end
end

-- uses queues claims common
if type(value) == 'table' then -- a hash
  local holder, state, fence, is_awaited = fields_of(key, 'token', 'state', 'fence', 'awaited')
  if holder == token and state == 'running' then
    call('HSET', key, 'state', 'done')
    if result ~= 'null' then call('HSET', key, 'result', result) end
    call('XADD', P .. 'journal', '*', 'event', event, 'fence', fence)
    if is_awaited then wake_parked(claim) end
    return 1
  end
end
if next_claim ~= '' then -- only after a success may the next job skip its start, see `starts_of`
  key = P .. 'claim:' .. next_claim
  local its_holder, its_state = fields_of(key, 'token', 'state')
  if its_holder == next_token and its_state == 'running' then call('HINCRBY', key, 'starts', 1) end
end
return 0
