#!lua flags=allow-oom
-- Note when every schedule was looked at last.
-- KEYS: the note
-- ARGV: seconds since the epoch, seconds to keep it
-- Returns nothing
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
