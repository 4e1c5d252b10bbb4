#!lua flags=allow-oom
-- uses queues claims common
-- Note that all follow-ups of a finished job were sent. Used if the broker is another server.
-- KEYS: prefix
-- ARGV: claim, message id
-- Returns 1 if it was noted, 0 if the claim is of another message, or its job has no outcome
local key = P .. 'claim:' .. ARGV[1]
local id, state = fields_of(key, 'id', 'state')
if id ~= ARGV[2] or (state ~= 'done' and state ~= 'dead') then return 0 end
redis.call('HSET', key, 'followed', '1')
return 1
