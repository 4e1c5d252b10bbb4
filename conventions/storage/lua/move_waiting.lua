#!lua flags=allow-oom
-- uses layout queues claims common
-- Move waiting messages to other queues. Each keeps its priority, its place among all messages by order of arrival, and when it is due.
-- How many went out of a queue and into one is counted by minute: the rates of these queues are no work then.
-- KEYS: prefix
-- ARGV: for each message: queue, place ('queue' | 'delayed'), tag, score, the other queue, and the message as it is written for that one
-- Returns for each message 1; or 0, and does nothing, if the message has moved or its form is not known here
-- Error: NEWERLAYOUT
local function move(queue, place, tag, score, to, payload)
  local key = P .. place .. ':' .. queue
  if redis.call('ZSCORE', key, tag) ~= score then return 0 end
  if is_unknown(tag) then
    note_unknown('message:' .. tag)
    return 0
  end
  local own, _, priority, digest, generation = sent(tag)
  if not own then return 0 end -- another program wrote it
  if is_sent(tag) then
    write_message(tag, own, to, priority, digest, generation, payload)
  else
    redis.call('HSET', message_key(tag), 'queue', to, 'payload', payload)
  end
  redis.call('SADD', P .. 'queues', to)
  if place == 'queue' then
    make_ready(tag, to, score)
  else
    redis.call('ZADD', P .. 'delayed:' .. to, score, tag)
    wake(to)
    local parked = redis.call('ZSCORE', P .. 'parked_in:' .. queue, tag)
    if parked then
      redis.call('ZREM', P .. 'parked_in:' .. queue, tag)
      redis.call('ZADD', P .. 'parked_in:' .. to, parked, tag)
      redis.call('PEXPIRE', P .. 'parked_in:' .. to, 2 * PARK_AT_MOST)
    end
  end
  redis.call('ZREM', key, tag)
  return 1
end

local answers = {}
local moved = P .. 'counts:moved:' .. integer(math.floor(now / 60000))
for i = 1, #ARGV, 6 do
  local went = move(unpack(ARGV, i, i + 5))
  if went == 1 then
    redis.call('HINCRBY', moved, ARGV[i], 1)
    redis.call('HINCRBY', moved, ARGV[i + 4], 1)
    redis.call('PEXPIRE', moved, 7800000)
  end
  answers[#answers + 1] = went
end
return answers
