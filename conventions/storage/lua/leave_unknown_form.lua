#!lua flags=allow-oom
-- uses queues claims common
-- Leave held messages that this worker cannot read, since a later release wrote them. They wait in place, nothing is
-- counted, and `unknown` lists them.
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
