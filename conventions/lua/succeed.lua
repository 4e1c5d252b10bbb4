#!lua flags=allow-oom
-- Record that a job of a group has succeeded, as `settle` would, where nothing waits for it. Its message stays in the
-- worker's hands until the group has ended: see `recorded`. This runs once for each short job, so it shares no parts, of
-- which the server would make all functions anew.
-- KEYS: prefix
-- ARGV: claim, token, result as JSON, event as JSON
-- Returns 1, or 0 where `settle` has to look at it: the claim is not ours any more or ended before, or a message waits for
-- its key. Nobody reads it.
local call, P = redis.call, KEYS[1]
local claim, token, result, event = unpack(ARGV)
local key = P .. 'claim:' .. claim
local holder, state, fence, awaited = unpack(call('HMGET', key, 'token', 'state', 'fence', 'awaited'))
if holder ~= token or state ~= 'running' or awaited then return 0 end
call('HSET', key, 'state', 'done')
if result ~= 'null' then call('HSET', key, 'result', result) end -- none is read as this
call('XADD', P .. 'journal', '*', 'event', event, 'fence', fence) -- its id says when
return 1
