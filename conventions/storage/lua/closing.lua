#!lua flags=allow-oom
-- uses queues claims common
-- Find batches of which something was to be sent by somebody who is gone.
-- KEYS: prefix
-- ARGV: how many at the most
-- Returns their ids
return redis.call('ZRANGEBYSCORE', P .. 'closing', '-inf', now, 'LIMIT', 0, ARGV[1])
