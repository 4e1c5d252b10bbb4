#!lua flags=allow-oom
-- Extend the leases of running claims.
-- KEYS: for each job, its claim (hash)
-- ARGV: lease in ms, then for each job its token
-- Returns for each job 1 (extended) or 0 (the claim is another's, or has ended)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answers = {}
for i, key in ipairs(KEYS) do
  local claim = redis.call('HMGET', key, 'token', 'state', 'until')
  if claim[1] == ARGV[i + 1] and claim[2] == 'running' then
    redis.call('HSET', key, 'until', math.max(tonumber(claim[3]), now + ARGV[1]))
    answers[i] = 1
  else
    answers[i] = 0
  end
end
return answers
