#!lua flags=allow-oom
-- Record that a job of a group has succeeded, as `settle` would. Its message stays in the worker's hands until the group has
-- ended: see `recorded`. This runs once for each short job, so the usual case comes first, before the parts that it shares with
-- others, of which the server would make all functions anew.
-- KEYS: prefix
-- ARGV: claim, token, result as JSON, event as JSON, claim and token of the job that begins after it, or '' and ''
-- Returns 1, or 0 where `settle` has to look at it: the claim is not ours any more or ended before. Nobody reads it.
local call, P = redis.call, KEYS[1]
local claim, token, result, event, next_claim, next_token = unpack(ARGV)
local key = P .. 'claim:' .. claim
local value = redis.pcall('GET', key)
if type(value) == 'string' then -- see `claims`
  local start = 'R\31' .. token .. '\31'
  if string.sub(value, 1, #start) == start then
    local fence = string.match(value, '^[^\31]*\31([^\31]*)', #start + 1)
    call('SETRANGE', key, 0, 'D')
    if result ~= 'null' then call('APPEND', key, '\31' .. result) end -- none is read as this
    call('XADD', P .. 'journal', '*', 'event', event, 'fence', fence) -- its id says when
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
if next_claim ~= '' then -- what follows a success needs no start of its own, see `starts_of`
  key = P .. 'claim:' .. next_claim
  local its_holder, its_state = fields_of(key, 'token', 'state')
  if its_holder == next_token and its_state == 'running' then call('HINCRBY', key, 'starts', 1) end
end
return 0
