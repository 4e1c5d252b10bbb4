#!lua flags=allow-oom
-- Move an entry that cannot be recorded from the journal to the list of rejected entries.
-- KEYS: the journal, the list
-- ARGV: group, id of the entry, the entry as text, seconds that the list is kept after its last addition
-- Returns the length of the list
local length = redis.call('RPUSH', KEYS[2], ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[4])
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
redis.call('XDEL', KEYS[1], ARGV[2])
return length
