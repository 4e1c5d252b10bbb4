#!lua flags=allow-oom
-- uses queues claims common batch
-- Note that a batch has no more chunks. A batch that has ended stays as it is.
-- KEYS: prefix
-- ARGV: id of the batch, number of chunks, number of items
-- Returns 'cut', 'cancelled' (meanwhile) or 'forgotten'
local batch, progress = P .. 'batch:' .. ARGV[1], P .. 'progress:' .. ARGV[1]
local state = redis.call('HGET', batch, 'state')
if not state then return 'forgotten' end
if state == 'cancelled' then return 'cancelled' end
if state ~= 'splitting' and state ~= 'running' then return 'cut' end
redis.call('HSET', batch, 'chunks', ARGV[2], 'state', 'running')
redis.call('HSET', progress, 'total', ARGV[3], 'updated_at', string.format('%.3f', now / 1000))
note_what_follows(ARGV[1])
return 'cut'
