#!lua flags=allow-oom
-- Record that a job of a group has succeeded, as `settle` would, where nothing waits for it. Its message stays in the
-- worker's hands until the group has ended: see `recorded`. This runs once for each short job, so it shares no parts, of
-- which the server would make all functions anew.
-- KEYS: prefix
-- ARGV: claim, token, result as JSON, event as JSON, claim and token of the job that begins after it, or '' and ''
-- Returns 1, or 0 where `settle` has to look at it: the claim is not ours any more or ended before, or a message waits for
-- its key. Nobody reads it.
local call, P = redis.call, KEYS[1]
local claim, token, result, event, next_claim, next_token = unpack(ARGV)
local key = P .. 'claim:' .. claim
local holder, state, fence, awaited = unpack(call('HMGET', key, 'token', 'state', 'fence', 'awaited'))
if holder ~= token or state ~= 'running' or awaited then
  if next_claim ~= '' then -- what follows a success needs no start of its own, see `starts_of`
    local its_holder, its_state = unpack(call('HMGET', P .. 'claim:' .. next_claim, 'token', 'state'))
    if its_holder == next_token and its_state == 'running' then call('HINCRBY', P .. 'claim:' .. next_claim, 'starts', 1) end
  end
  return 0
end
call('HSET', key, 'state', 'done')
if result ~= 'null' then call('HSET', key, 'result', result) end -- none is read as this
call('XADD', P .. 'journal', '*', 'event', event, 'fence', fence) -- its id says when
return 1
