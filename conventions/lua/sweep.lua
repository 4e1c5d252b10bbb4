#!lua flags=allow-oom
-- uses queues claims common
-- Find what nobody looks after: messages of workers that are gone, delayed ones that are due.
-- Reads `delayed` and `inflight` only, so that its cost does not depend on how much is ready.
-- KEYS: prefix
-- ARGV: how many messages of each kind and queue at the most
-- Returns {messages taken from gone workers, due messages}; call again while one of them is not below the limit
local limit, recovered, due = tonumber(ARGV[1]), 0, 0
for _, queue in ipairs(redis.call('SMEMBERS', P .. 'queues')) do
  local lapsed = redis.call('ZRANGEBYSCORE', P .. 'inflight:' .. queue, '-inf', now, 'LIMIT', 0, limit)
  for _, tag in ipairs(lapsed) do
    local score = score_of(tag)
    if score then make_ready(tag, queue, score) end
    count_delivery(tag)
    let_go(tag, queue)
  end
  recovered = math.max(recovered, #lapsed)
  due = math.max(due, promote(queue, limit))
  if redis.call('EXISTS', P .. 'queue:' .. queue) == 1 then wake(queue) end -- a mark may have died with its reader
end
return {recovered, due}
