#!lua flags=allow-oom
-- uses queues claims common schedule
-- Pause a schedule, also when memory is full: that is when somebody wants it to send nothing.
-- KEYS: prefix
-- ARGV: schedule, the pause as JSON, audit entry as JSON
-- Returns nothing
redis.call('HSET', P .. 'schedule:paused', ARGV[1], ARGV[2])
note_audit(ARGV[3])
