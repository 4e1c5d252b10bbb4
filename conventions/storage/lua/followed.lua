#!lua flags=allow-oom
-- uses queues claims common
-- Note that all follow-ups of a finished job were sent. Used if the broker is another server.
-- KEYS: prefix
-- ARGV: claim, message id, token of the delivery
-- Returns 1 if it was noted, 0 if the claim is of another message or delivery
local key = P .. 'claim:' .. ARGV[1]
local id, token = fields_of(key, 'id', 'token')
if id ~= ARGV[2] or token ~= ARGV[3] then return 0 end
redis.call('HSET', key, 'followed', '1')
return 1
