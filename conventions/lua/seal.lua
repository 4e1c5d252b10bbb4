#!lua flags=allow-oom
-- Say that no more chunks of a batch follow. A batch that was cancelled or has ended stays so.
-- KEYS: batch (hash), outcomes (hash), progress (hash)
-- ARGV: number of chunks, number of items
-- Returns 1 if every chunk has an outcome already, else 0
redis.call('HSET', KEYS[1], 'chunks', ARGV[1])
if redis.call('HGET', KEYS[1], 'state') == 'splitting' then redis.call('HSET', KEYS[1], 'state', 'running') end
redis.call('HSET', KEYS[3], 'total', ARGV[2], 'updated_at', redis.call('TIME')[1])
return redis.call('HLEN', KEYS[2]) >= tonumber(ARGV[1]) and 1 or 0
