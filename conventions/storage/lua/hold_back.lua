#!lua flags=allow-oom
-- uses queues claims common
-- Return messages that wait for the rate limit of their task, or until it is resumed, in place, with no delivery counted. They are in
-- `delayed`, so that a worker finds them in the end, and in `limited:<task>` or `paused:<task>` by their place in the queue: see
-- `let_through`.
-- KEYS: prefix
-- ARGV: for each message: tag, queue, receipt, task, ms, 'limited' | 'paused'; the ms are those between two jobs of a task with a limit,
--       and those until a message of a paused task is due all the same
-- Returns how many went back
local AT_LEAST, AT_MOST = 60000, 3600000 -- ms
local LOOKS = 3 -- how many other held-back messages to check for each one
local returned = 0

-- Check some entries at random, and forget messages that no longer wait: they were due, ended or purged. So at most about a third
-- of the entries are stale, even if few messages are let through, and the next message does not wait longer than it must.
local function forget_some(limited)
  for _, tag in ipairs(redis.call('ZRANDMEMBER', limited, LOOKS)) do
    local _, queue = sent(tag)
    if not queue or not redis.call('ZSCORE', P .. 'delayed:' .. queue, tag) then redis.call('ZREM', limited, tag) end
  end
end

for i = 1, #ARGV, 6 do
  local tag, queue, receipt, task, period, why = unpack(ARGV, i, i + 5)
  local score = holds(tag, receipt) and score_of(tag)
  if score then
    local limited = P .. why .. ':' .. task
    forget_some(limited)
    local before = why == 'limited' and redis.call('ZCARD', limited) or 1
    local wait = math.min(math.max(before * tonumber(period), AT_LEAST), AT_MOST)
    make_delayed(tag, queue, wait + clock[2] % 1000, true)
    redis.call('ZADD', limited, score, tag)
    redis.call('PEXPIRE', limited, 2 * AT_MOST)
    redis.call('SADD', P .. why, task)
    let_go(tag, queue)
    returned = returned + 1
  end
end
return returned
