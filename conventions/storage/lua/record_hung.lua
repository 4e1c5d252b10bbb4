#!lua flags=allow-oom
-- uses queues claims common
-- Write to the journal that a job is ended whose process goes on, and note that with its claim: it is no start that nobody tells of.
-- KEYS: prefix
-- ARGV: claim (`<task>:<key>`), token, event as JSON
-- Returns 1; or 0, and does nothing, where the job does not run any more
local key = P .. 'claim:' .. ARGV[1]
local holder, state = fields_of(key, 'token', 'state')
if holder ~= ARGV[2] or state ~= 'running' then return 0 end
redis.call('HSET', key, 'told', holder)
redis.call('XADD', P .. 'journal', '*', 'event', ARGV[3], 'fence', '0', 'at', integer(now))
return 1
