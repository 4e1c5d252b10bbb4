#!lua flags=allow-oom
-- uses claims
-- Count the start of a job of a group that begins after one which has not succeeded; see `starts_of`.
-- KEYS: prefix
-- ARGV: its claim and its token
-- Returns 1, or 0 where the claim is not ours any more, or has ended. Nobody reads it.
local key = KEYS[1] .. 'claim:' .. ARGV[1]
local holder, state = fields_of(key, 'token', 'state')
if holder ~= ARGV[2] or state ~= 'running' then return 0 end
redis.call('HINCRBY', key, 'starts', 1)
return 1
