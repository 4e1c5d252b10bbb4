#!lua flags=allow-oom
-- Put off what a receiver did not take, unless it was sent, put off or hurried since it was read: another process may lead by now.
-- KEYS: prefix
-- ARGV: id, when it was due as it was read, it as JSON, when it is due from now on
-- Returns 1; or 0 if it is not due as it was: then nothing is changed
local due = KEYS[1] .. 'alerts:due'
if redis.call('ZSCORE', due, ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1] .. 'alerts:messages', ARGV[1], ARGV[3])
redis.call('ZADD', due, ARGV[4], ARGV[1])
return 1
