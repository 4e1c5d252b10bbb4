#!lua
-- uses common
-- Put messages into their queues. Without allow-oom: a full server must say no here, and only here.
-- KEYS: prefix
-- ARGV: events that may wait in the journal; then for each message: tag, tag to take when another message has the
--       first one, queue, payload, priority, ms to wait, digest of what it asks for, generation, ms to live or 0
-- Returns for each message its tag, or '' when this very message is there already
-- Error: JOURNALFULL
if redis.call('XLEN', P .. 'journal') >= tonumber(ARGV[1]) then
  return redis.error_reply('JOURNALFULL the journal is full: its recorder does not run, or SQL does not answer')
end

local function publish(tag, other, queue, payload, priority, wait, digest, generation, lifetime)
  local there, its_generation = unpack(redis.call('HMGET', message_key(tag), 'digest', 'generation'))
  if there then
    if there == digest and its_generation == generation then return '' end
    if redis.call('EXISTS', message_key(other)) == 1 then return '' end -- a reply was lost
    tag = other
  end
  local score = next_score(tonumber(priority))
  if tonumber(wait) > 0 then make_delayed(tag, queue, tonumber(wait)) else make_ready(tag, queue, score) end
  redis.call('HSET', message_key(tag), 'payload', payload, 'queue', queue, 'priority', priority, 'score', score,
    'digest', digest, 'generation', generation)
  if tonumber(lifetime) > 0 then -- a reply that nobody may come for
    redis.call('PEXPIRE', message_key(tag), lifetime)
    redis.call('PEXPIRE', P .. 'queue:' .. queue, lifetime)
    redis.call('PEXPIRE', P .. 'wake:' .. queue, lifetime)
  else
    redis.call('SADD', P .. 'queues', queue)
  end
  return tag
end

local tags = {}
for i = 2, #ARGV, 9 do tags[#tags + 1] = publish(unpack(ARGV, i, i + 8)) end
return tags
