#!lua flags=allow-oom
-- uses queues claims common
-- End the claim of a job that is ended from outside. Its process may live on, but cannot record another end.
-- KEYS: prefix
-- ARGV: claim, token
-- Returns 1; or 0 if the claim has another holder, or has ended
local holder, state = fields_of(P .. 'claim:' .. ARGV[1], 'token', 'state')
if holder ~= ARGV[2] or state ~= 'running' then return 0 end
take_from_holder(ARGV[1])
return 1
