#!lua flags=allow-oom
-- uses queues claims common
-- Whether the job of a delivery has begun, and has not ended.
-- KEYS: prefix
-- ARGV: its claim and its token
-- Returns 1 or 0
local holder, state, starts, after = fields_of(P .. 'claim:' .. ARGV[1], 'token', 'state', 'starts', 'after')
return (holder == ARGV[2] and state == 'running' and starts_of(ARGV[1], starts, after) > 0) and 1 or 0
