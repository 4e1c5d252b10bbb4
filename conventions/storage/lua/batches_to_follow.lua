#!lua flags=allow-oom
-- uses queues claims common
-- Find batches that wait for a message whose sender has died.
-- KEYS: prefix
-- ARGV: how many at the most
-- Returns their ids
return redis.call('ZRANGEBYSCORE', P .. 'closing', '-inf', now, 'LIMIT', 0, ARGV[1])
