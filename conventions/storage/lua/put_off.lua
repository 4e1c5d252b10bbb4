#!lua flags=allow-oom
-- uses queues claims common
-- Delay held messages that this worker cannot run, since it does not know their task or the key that signed them. Nothing is counted.
-- KEYS: prefix
-- ARGV: for each message: tag, queue, receipt, ms to wait, all its headers that differ from those that were sent, as JSON, the task that is not known or ''
-- Returns how many wait now
local waiting = 0
for i = 1, #ARGV, 6 do
  local tag, queue, receipt, wait, changes, task = unpack(ARGV, i, i + 5)
  if holds(tag, receipt) then
    change(tag, 'changes', changes, 'alone', 1)
    make_delayed(tag, queue, tonumber(wait))
    let_go(tag, queue)
    if task ~= '' then redis.call('ZADD', P .. 'unknown_tasks', clock[1], task) end
    waiting = waiting + 1
  end
end
redis.call('ZREMRANGEBYRANK', P .. 'unknown_tasks', 0, -1001)
redis.call('PEXPIRE', P .. 'unknown_tasks', 3600000)
return waiting
