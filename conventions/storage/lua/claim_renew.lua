#!lua flags=allow-oom
-- uses queues claims common
-- Extend the leases of running claims.
-- KEYS: prefix
-- ARGV: lease in ms, then for each job its claim and its token
-- Returns for each job 1 (extended) or 0 (the claim has another holder, or has ended)
local answers = {}
for i = 2, #ARGV, 2 do
  local key = P .. 'claim:' .. ARGV[i]
  local holder, state, till = fields_of(key, 'token', 'state', 'until')
  if holder == ARGV[i + 1] and state == 'running' then
    redis.call('HSET', key, 'until', integer(math.max(tonumber(till), now + ARGV[1])))
    answers[#answers + 1] = 1
  else
    answers[#answers + 1] = 0
  end
end
return answers
