#!lua flags=allow-oom
-- uses queues claims common ready_again
-- Find what nobody looks after: messages of dead workers, due messages, messages in flight that are in no set, and tags
-- without a message.
-- It reads `delayed` and `inflight` only, so its cost does not depend on the length of queues. It reads `receipts` only if that
-- has more entries than `inflight`.
-- KEYS: prefix
-- ARGV: how many messages of each kind and queue at the most, ms without a heartbeat after which a message goes to another worker;
--       then the queues that the caller consumes
-- Returns {messages taken from gone workers, due messages, messages found again, messages lost}; call again while one of the first two
-- is not below the limit
local limit, recovered, due, found, lost = tonumber(ARGV[1]), 0, 0, 0, 0
if #ARGV > 2 then redis.call('SADD', P .. 'queues', unpack(ARGV, 3)) end -- somebody may have deleted the list
local queues = redis.call('SMEMBERS', P .. 'queues')

local in_flight = 0
for _, queue in ipairs(queues) do in_flight = in_flight + redis.call('ZCARD', P .. 'inflight:' .. queue) end
if redis.call('HLEN', P .. 'receipts') > in_flight then
  for _, tag in ipairs(redis.call('HKEYS', P .. 'receipts')) do
    local score, queue = sent(tag)
    if is_unknown(tag) then
      note_unknown('message:' .. tag) -- a worker of a later release holds it
    elseif not score then -- its message is gone, too, and no queue is known
      note_lost(tag, '')
      lost = lost + 1
      redis.call('HDEL', P .. 'receipts', tag)
      redis.call('HDEL', P .. 'started', tag)
    elseif find_place(tag, queue, score, math.max(tonumber(ARGV[2]), VISIBILITY)) then -- its holder may send heartbeats less often
      found = found + 1
    elseif queue and not redis.call('ZSCORE', P .. 'inflight:' .. queue, tag) then -- it waits, and nobody holds it
      redis.call('HDEL', P .. 'receipts', tag)
      redis.call('HDEL', P .. 'started', tag)
    end
  end
end

for _, queue in ipairs(queues) do
  local lapsed = redis.call('ZRANGEBYSCORE', P .. 'inflight:' .. queue, '-inf', now, 'LIMIT', 0, limit)
  for _, tag in ipairs(lapsed) do
    local score = score_of(tag)
    if score then
      if had_begun(tag) then ready_again(tag, now) end
      make_ready(tag, queue, score)
      note_interrupted(tag)
    else
      note_lost(tag, queue)
      lost = lost + 1
    end
    count_delivery(tag)
    let_go(tag, queue)
  end
  recovered = math.max(recovered, #lapsed)
  due = math.max(due, promote(queue, limit))
  if redis.call('EXISTS', P .. 'queue:' .. queue) == 1 then wake(queue) end -- a mark may have died with its reader
end
return {recovered, due, found, lost}
