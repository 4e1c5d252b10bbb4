#!lua flags=allow-oom
-- Write a key. WAITAOF on this connection then waits for this write, and so for all earlier writes of any client.
-- KEYS: the key to write
-- ARGV: how long it lives, ms
-- Returns how often it was written
local written = redis.call('INCR', KEYS[1])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return written
