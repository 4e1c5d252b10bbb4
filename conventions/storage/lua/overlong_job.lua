#!lua flags=allow-oom
-- Count a job that ran too long, by task. Keeps the longest and the last one.
-- KEYS: prefix
-- ARGV: task, message id, seconds that it ran, seconds since the epoch, ms to keep
-- Returns how many there were of this task
local key = KEYS[1] .. 'too_long:' .. ARGV[1]
local last_id, last_at, count = unpack(redis.call('HMGET', key, 'last_id', 'last_at', 'count'))
if last_id == ARGV[2] and last_at == ARGV[4] then return tonumber(count) end -- a reply was lost
local longest = tonumber(redis.call('HGET', key, 'longest') or 0)
if tonumber(ARGV[3]) > longest then redis.call('HSET', key, 'longest', ARGV[3]) end
redis.call('HSET', key, 'last_id', ARGV[2], 'last_at', ARGV[4])
redis.call('PEXPIRE', key, ARGV[5])
redis.call('SADD', KEYS[1] .. 'too_long', ARGV[1])
return redis.call('HINCRBY', key, 'count', 1)
