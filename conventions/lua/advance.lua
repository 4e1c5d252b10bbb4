#!lua flags=allow-oom
-- Move a schedule's cursor to a slot, never back, and remember the run.
-- KEYS: entry (hash, RedBeat's), due times (zset, RedBeat's), history (list, newest first)
-- ARGV: slot and next slot in seconds since the epoch (the latter '' when there is none), RedBeat's meta as JSON,
--       the run as JSON or '', runs to keep
-- Returns 1 when the cursor moved, 0 when it was there already or further
if tonumber(ARGV[1]) <= tonumber(redis.call('HGET', KEYS[1], 'cursor') or -1) then return 0 end
redis.call('HSET', KEYS[1], 'cursor', ARGV[1], 'meta', ARGV[3])
if ARGV[2] == '' then
  redis.call('ZREM', KEYS[2], KEYS[1])
else
  redis.call('ZADD', KEYS[2], ARGV[2], KEYS[1])
end
if ARGV[4] ~= '' then
  redis.call('LPUSH', KEYS[3], ARGV[4])
  redis.call('LTRIM', KEYS[3], 0, ARGV[5] - 1)
end
return 1
