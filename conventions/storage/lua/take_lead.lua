#!lua flags=allow-oom
-- Take, keep or give up the lead of the recorders, or of those who judge alerts, even when memory is full, since recording frees memory.
-- KEYS: the lead
-- ARGV: who asks, milliseconds for which the lead lasts (0: give it up)
-- Returns 1 when the one who asks leads now, else 0
local leader = redis.call('GET', KEYS[1])
if leader and leader ~= ARGV[1] then
  return 0
end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
