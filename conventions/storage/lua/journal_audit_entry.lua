#!lua flags=allow-oom
-- Append an audit entry to the journal, even when memory is full: the action has happened.
-- KEYS: the journal
-- ARGV: the audit entry as JSON
-- Returns the id of the entry
local now = redis.call('TIME')
return redis.call('XADD', KEYS[1], '*', 'deed', ARGV[1], 'at', now[1] .. string.format('%03d', math.floor(now[2] / 1000)))
