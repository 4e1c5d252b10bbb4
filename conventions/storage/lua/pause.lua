#!lua flags=allow-oom
-- Pause a queue, a task or a worker, even when memory is full: people want to pause them then.
-- KEYS: prefix
-- ARGV: what is paused, the pause as JSON, audit entry as JSON
-- Returns the revision of the pauses
local now = redis.call('TIME')
redis.call('HSET', KEYS[1] .. 'pauses', ARGV[1], ARGV[2])
redis.call('XADD', KEYS[1] .. 'journal', '*', 'deed', ARGV[3], 'at', now[1] .. string.format('%03d', math.floor(now[2] / 1000)))
return redis.call('HINCRBY', KEYS[1] .. 'pauses', 'revision', 1)
