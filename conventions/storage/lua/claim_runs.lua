#!lua flags=allow-oom
-- uses queues claims common
-- Whether the job of a delivery has begun, and has not ended.
-- KEYS: prefix
-- ARGV: its claim and its token
-- Returns 1; 2 if it runs and the lease of its claim is over; or 0
local key = P .. 'claim:' .. ARGV[1]
local holder, state, starts, after = fields_of(key, 'token', 'state', 'starts', 'after')
if holder ~= ARGV[2] or state ~= 'running' or starts_of(ARGV[1], starts, after) == 0 then return 0 end
local _, _, till = peek(key)
return tonumber(till) < now and 2 or 1
