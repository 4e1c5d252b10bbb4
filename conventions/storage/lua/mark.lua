#!lua flags=allow-oom
-- Write something, so that what this connection waits for with WAITAOF lies behind all writes so far, whoever made them.
-- KEYS: the key to write
-- ARGV: how long it lives, ms
-- Returns how often it was written
local written = redis.call('INCR', KEYS[1])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return written
