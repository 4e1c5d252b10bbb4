#!lua flags=allow-oom
-- uses queues claims common
-- Remove waiting messages without a trace, such as answers to remote control. Messages that workers hold stay.
-- KEYS: prefix
-- ARGV: queue, how many at the most
-- Returns how many were removed; call again while it is not below the limit
local removed = 0
local limit = tonumber(ARGV[2])
for _, place in ipairs({'queue:', 'delayed:'}) do
  local popped = place == 'queue:' and pop_ready(ARGV[1], limit)
    or redis.call('ZPOPMIN', P .. 'delayed:' .. ARGV[1], limit - removed)
  for i = 1, #popped, 2 do
    if is_unknown(popped[i]) then leave_unknown(popped[i], ARGV[1]) else redis.call('DEL', message_key(popped[i])) end
  end
  removed = removed + #popped / 2
end
return removed
