#!lua flags=allow-oom
-- uses queues claims common schedule
-- Pause a schedule, even when memory is full: people want to pause schedules then.
-- KEYS: prefix
-- ARGV: schedule, the pause as JSON, audit entry as JSON
-- Returns nothing
redis.call('HSET', P .. 'schedule:paused', ARGV[1], ARGV[2])
note_audit(ARGV[3])
