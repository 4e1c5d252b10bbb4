#!lua flags=allow-oom
-- Record how jobs ended. Refused for a token that is not the holder's, never because time passed.
-- KEYS: for each job, its claim (hash)
-- ARGV: for each job: token, state ('done' | 'released' | 'dead'), result as JSON or '', ms to wait or 0, ms to keep
-- Returns for each job 1 (recorded, now or before) or 0 (the claim is another's)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answers = {}
for i, key in ipairs(KEYS) do
  local base = (i - 1) * 5
  local claim = redis.call('HMGET', key, 'token', 'state')
  if claim[1] ~= ARGV[base + 1] then
    answers[i] = 0
  else
    if claim[2] == 'running' then
      redis.call('HSET', key, 'state', ARGV[base + 2], 'result', ARGV[base + 3], 'until', now + ARGV[base + 4])
      redis.call('PEXPIRE', key, ARGV[base + 5])
    end
    answers[i] = 1
  end
end
return answers
