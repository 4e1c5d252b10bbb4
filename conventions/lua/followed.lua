#!lua flags=allow-oom
-- uses common
-- Note that everything that follows a finished job was sent, where the broker is elsewhere.
-- KEYS: prefix
-- ARGV: claim, message id
-- Returns 1 when it was noted, 0 when the claim is of another message
local key = P .. 'claim:' .. ARGV[1]
if redis.call('HGET', key, 'id') ~= ARGV[2] then return 0 end
redis.call('HSET', key, 'followed', '1')
return 1
