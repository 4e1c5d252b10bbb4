#!lua flags=allow-oom
-- uses queues claims common ready_again
-- Remove messages that have ended. A stale receipt changes nothing. A message whose job has recorded no outcome
-- comes again.
-- KEYS: prefix
-- ARGV: for each message: tag, queue, receipt, claim ('' if its job has none on this server), message id if its job has
--       follow-ups and all were sent, else ''. With the id this is noted, so that they are not sent again
-- Returns how many were removed
local removed = 0

local function end_message(tag, queue, receipt, claim, id)
  if not holds(tag, receipt) then return 0 end
  if claim ~= '' then
    local state, owner = fields_of(P .. 'claim:' .. claim, 'state', 'id')
    if state ~= 'done' and not history(tag, 'ended') then
      ready_again(tag, come_again(tag, queue))
      return 0
    end
    if id ~= '' and owner == id then redis.call('HSET', P .. 'claim:' .. claim, 'followed', '1') end
  end
  remove(tag, queue, receipt)
  return 1
end

for i = 1, #ARGV, 5 do removed = removed + end_message(unpack(ARGV, i, i + 4)) end
return removed
