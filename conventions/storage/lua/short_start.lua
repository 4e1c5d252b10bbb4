#!lua flags=allow-oom
-- uses claims
-- Count the start of a job in a group. It is needed when the job before it has not succeeded: see `starts_of`.
-- KEYS: prefix
-- ARGV: claim, token
-- Returns 1; or 0 if the claim has another holder, or has ended. Nobody reads the answer.
local key = KEYS[1] .. 'claim:' .. ARGV[1]
local holder, state = fields_of(key, 'token', 'state')
if holder ~= ARGV[2] or state ~= 'running' then return 0 end
redis.call('HINCRBY', key, 'starts', 1)
return 1
