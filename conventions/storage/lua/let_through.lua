#!lua flags=allow-oom
-- uses queues claims common
-- Make messages ready that wait for the rate limit of their task, or until it is resumed, oldest first.
-- KEYS: prefix
-- ARGV: 'limited' | 'paused', task, how many
-- Returns {how many are ready now, how many wait still, at the most}
local why, task, most = ARGV[1], ARGV[2], tonumber(ARGV[3])
local limited = P .. why .. ':' .. task
local ready = 0

while ready < most do
  local popped = redis.call('ZPOPMIN', limited, most - ready)
  if #popped == 0 then break end
  for i = 1, #popped, 2 do
    local tag = popped[i]
    local score, queue = sent(tag)
    if queue and redis.call('ZSCORE', P .. 'delayed:' .. queue, tag) then -- it still waits: not due, ended or purged meanwhile
      make_ready(tag, queue, score)
      redis.call('ZREM', P .. 'delayed:' .. queue, tag)
      ready = ready + 1
    end
  end
end
local left = redis.call('ZCARD', limited)
if left == 0 then redis.call('SREM', P .. why, task) end
return {ready, left}
