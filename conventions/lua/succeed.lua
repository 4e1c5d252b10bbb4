#!lua flags=allow-oom
-- Record that a job of a group has succeeded, as `settle` would, where nothing waits for it; in one step with the start of
-- the next one. It runs once for each short job: it shares no parts, of which the server would make all functions anew.
-- KEYS: prefix
-- ARGV: claim, token, message id, tag, queue, receipt, result as JSON, event as JSON, claim and token of a job that begins
--       after this one, or '' and ''
-- Returns 1, or 0 where `settle` has to look at it: the claim is not ours any more or ended before, its message is in other
-- hands, it has reported progress, a message waits for its key, or a schedule for its end. Nobody reads it: see `recorded`.
local call, P = redis.call, KEYS[1]
local claim, token, id, tag, queue, receipt, result, event, next_claim, next_token = unpack(ARGV)
if next_claim ~= '' then
  local holder = call('HMGET', P .. 'claim:' .. next_claim, 'token', 'state')
  if holder[1] == next_token and holder[2] == 'running' then -- not ended meanwhile, by another connection
    call('HINCRBY', P .. 'claim:' .. next_claim, 'starts', 1)
  end
end
local key, message = P .. 'claim:' .. claim, P .. 'message:' .. tag
local found = call('HMGET', key, 'token', 'state', 'fence')
if found[1] ~= token or found[2] ~= 'running' or call('HGET', message, 'receipt') ~= receipt
    or call('EXISTS', P .. 'progress:' .. id, P .. 'parked:' .. claim, P .. 'live:' .. id) > 0 then
  return 0
end
call('HSET', key, 'state', 'done', 'result', result, 'starts', 0)
call('ZREM', P .. 'inflight:' .. queue, tag)
call('DEL', message)
call('XADD', P .. 'journal', '*', 'event', event, 'fence', found[3]) -- its id says when
return 1
