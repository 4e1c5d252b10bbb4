#!lua flags=allow-oom
-- uses queues claims common interrupted
-- End the claim of a message that is ended from outside. A process may still run its job, but cannot record another end.
-- KEYS: prefix
-- ARGV: claim, message id, generation, token of the delivery that ends; who loses the claim: 'nobody', a holder whose lease
--       has 'lapsed', or also the delivery 'itself'
-- Returns 'ended', which is also what 'nobody' would become; 'runs' if it stays with its holder; 'done' or 'dead', as the message
-- has ended before; 'released' or 'continued' if this delivery has just ended so; or '' if no claim need be ended
local claim, id, generation, token, loser = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local key = P .. 'claim:' .. claim
local state, holder, owner, its_generation, till, starts, after =
  fields_of(key, 'state', 'token', 'id', 'generation', 'until', 'starts', 'after')
its_generation = tonumber(its_generation or 0)
if owner ~= id or its_generation > generation or not WORDS[state] then return '' end
if holder == NOBODY then return 'ended' end
if holder and state ~= 'running' then
  local is_ours = its_generation == generation
  if state == 'done' or (is_ours and (state == 'dead' or holder == token)) then return state end
  if state ~= 'continued' then return '' end -- nobody holds it; a continued one belongs to its message until that ends
elseif holder and tonumber(till) > now and (loser ~= 'itself' or holder ~= token) then
  return 'runs'
end
if loser ~= 'nobody' then
  if state == 'running' and holder ~= token and starts_of(claim, starts, after) > 0 then keep_lapsed(key, tonumber(till)) end -- its own start has this end
  take_from_holder(claim)
end
return 'ended'
