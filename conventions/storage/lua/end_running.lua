#!lua flags=allow-oom
-- uses queues claims common
-- End the claim of a message that is ended from outside. A process may still run its job, but cannot record another end.
-- KEYS: prefix
-- ARGV: claim, message id, generation, '1' if a holder whose lease is not over loses it, too, else '0'
-- Returns 'ended'; 'runs' if it stays with its holder; 'done', 'dead', 'released' or 'continued' if an attempt has ended before;
-- or '' if this message has no claim
local claim, id, generation, all = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1'
local state, holder, owner, its_generation, till =
  fields_of(P .. 'claim:' .. claim, 'state', 'token', 'id', 'generation', 'until')
its_generation = tonumber(its_generation or 0)
if owner ~= id or its_generation > generation or not WORDS[state] then return '' end
if holder == NOBODY then return 'ended' end
if holder and state ~= 'running' then return (state == 'done' or its_generation == generation) and state or '' end
if holder and not all and tonumber(till) > now then return 'runs' end
take_from_holder(claim)
return 'ended'
