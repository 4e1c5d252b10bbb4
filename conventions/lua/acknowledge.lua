#!lua flags=allow-oom
-- uses common
-- Remove messages that have ended. A stale receipt touches nothing.
-- KEYS: prefix
-- ARGV: for each message: tag, queue, receipt, claim, id of the message ('' unless something follows its job, all of
--       which was sent: a message that comes again must not send it again)
-- Returns how many were removed
local removed = 0
for i = 1, #ARGV, 5 do
  local tag, queue, receipt, claim, id = unpack(ARGV, i, i + 4)
  if id ~= '' and redis.call('HGET', P .. 'claim:' .. claim, 'id') == id then
    redis.call('HSET', P .. 'claim:' .. claim, 'followed', '1')
  end
  if remove(tag, queue, receipt) then removed = removed + 1 end
end
return removed
