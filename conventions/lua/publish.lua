#!lua
-- uses queues
-- Put messages into their queues. Without allow-oom: a full server must say no here, and only here.
-- KEYS: prefix
-- ARGV: events that may wait in the journal; then for each message: tag, tag to take when another message has the
--       first one, queue, payload, priority, ms to wait, digest of what it asks for, generation, ms to live or 0
-- Returns for each message its tag, or '' when this very message is there already
-- Error: JOURNALFULL
if redis.call('XLEN', P .. 'journal') >= tonumber(ARGV[1]) then
  return redis.error_reply('JOURNALFULL the journal is full: its recorder does not run, or SQL does not answer')
end

local known, sequence = {}, redis.call('INCRBY', P .. 'sequence', (#ARGV - 1) / 9) - (#ARGV - 1) / 9

local function publish(tag, other, queue, payload, priority, wait, digest, generation, lifetime)
  local key = message_key(tag)
  local there, its_generation = unpack(redis.call('HMGET', key, 'digest', 'generation'))
  if there then
    if there == digest and its_generation == generation then return '' end
    if redis.call('EXISTS', message_key(other)) == 1 then return '' end -- a reply was lost
    tag, key = other, message_key(other)
  end
  sequence = sequence + 1
  local score = integer((9 - priority) * STEP + sequence)
  if tonumber(wait) > 0 then
    local clock = redis.call('TIME')
    redis.call('ZADD', P .. 'delayed:' .. queue, integer(clock[1] * 1000 + math.floor(clock[2] / 1000) + wait), tag)
  else
    make_ready(tag, queue, score, true)
  end
  redis.call('HSET', key, 'payload', payload, 'queue', queue, 'priority', priority, 'score', score, 'digest', digest,
    'generation', generation)
  if tonumber(lifetime) > 0 then -- a reply that nobody may come for
    redis.call('PEXPIRE', key, lifetime)
    redis.call('PEXPIRE', P .. 'queue:' .. queue, lifetime)
    wake(queue)
    redis.call('PEXPIRE', P .. 'wake:' .. queue, lifetime)
  elseif not known[queue] then
    known[queue] = true -- woken, once for all its messages, and listed, unless one that nobody has looked at is there
    if wake(queue) == 1 then redis.call('SADD', P .. 'queues', queue) end
  end
  return tag
end

local tags = {}
for i = 2, #ARGV, 9 do tags[#tags + 1] = publish(unpack(ARGV, i, i + 8)) end
return tags
