#!lua flags=allow-oom
-- uses queues claims common
-- Leave messages that a worker holds and cannot read, since a later release has written them: they wait in place, nothing is
-- counted, and they are named in `unknown`.
-- KEYS: prefix
-- ARGV: for each message: tag, queue, receipt
-- Returns how many wait now
local left = 0
for i = 1, #ARGV, 3 do
  local tag, queue, receipt = unpack(ARGV, i, i + 2)
  if holds(tag, receipt) then
    leave_unknown(tag, queue)
    let_go(tag, queue)
    left = left + 1
  end
end
return left
