-- Queues, as the scripts of messages share them.
-- A message is `message:<tag>`. While only the sent data is known it is one string, see `SENT`: half the time and memory of a
-- hash, and many are read at once. Any further data turns it into a hash, see `change`.
-- Its tag is in exactly one of three sorted sets of its queue:
--   queue:<queue>     ready; score: priority, then order of arrival
--   delayed:<queue>   score: when it is due, ms
--   inflight:<queue>  held by a worker; score: when it may go to another, ms
-- While it is held, its receipt is in `receipts`. If its job has begun alone, the receipt is also in `started`.
-- Redis does not roll back a failed script, so each script adds a message to its new place before removing it from the old one.
-- `wake:<queue>` has one member while an idle worker should look; all times are the server's.
-- Data of a later release in an unknown form is never deleted or overwritten. It stays, and `unknown` lists it, see
-- `note_unknown`. A later form is another type of key, a string that begins with `v<number>\31`, or a hash with a
-- field `form`.
-- KEYS: the application's prefix, such as `{conventions}:`
-- ARGV: those of the script that uses this
-- Returns nothing by itself
local P = KEYS[1]
local STEP = 1e14 -- room for the order of arrival within one priority

local function integer(number) return string.format('%.0f', number) end

local function message_key(tag) return P .. 'message:' .. tag end

-- List a key that stays because its form is not known, for `celery check`: its name without the prefix.
local function note_unknown(name)
  redis.call('ZADD', P .. 'unknown', redis.call('TIME')[1], name)
  redis.call('ZREMRANGEBYRANK', P .. 'unknown', 0, -1001)
  redis.call('PEXPIRE', P .. 'unknown', 2592000000)
end

-- Whether a message that is a string is in a later form.
local function is_later(value) return string.byte(value) == 118 and string.find(value, '^v%d+\31') ~= nil end -- 118: v

-- Score, queue, priority, digest, generation and payload. The score has sixteen digits, so it can be replaced in place.
local SENT = '^(%d+)\31([^\31]*)\31([^\31]*)\31([^\31]*)\31([^\31]*)\31(.*)$'

local function write_hash(key, score, queue, priority, digest, generation, payload)
  redis.call('HSET', key, 'score', score, 'queue', queue, 'priority', priority, 'digest', digest, 'generation', generation,
    'payload', payload)
end

local function write_message(tag, score, queue, priority, digest, generation, payload)
  if string.find(queue, '\31', 1, true) then
    write_hash(message_key(tag), score, queue, priority, digest, generation, payload)
  else
    redis.call('SET', message_key(tag), table.concat({string.format('%016.0f', score), queue, priority, digest, generation, payload}, '\31'))
  end
end

-- The sent data of a stored message. Of another program's data only the payload. Nothing if there is no message.
local function sent(tag)
  local key = message_key(tag)
  local kind = redis.call('TYPE', key).ok
  if kind == 'hash' then
    return unpack(redis.call('HMGET', key, 'score', 'queue', 'priority', 'digest', 'generation', 'payload'))
  end
  if kind ~= 'string' then return end
  local value = redis.call('GET', key)
  if string.find(value, SENT) then return string.match(value, SENT) end
  return nil, nil, nil, nil, nil, value
end

-- Returns 1 if the mark was not set.
local function wake(queue) return redis.call('ZADD', P .. 'wake:' .. queue, 0, '1') end

-- The score of a message of this priority (0 to 9, 9 first) that arrives now.
local function next_score(priority)
  return integer((9 - priority) * STEP + redis.call('INCR', P .. 'sequence'))
end

-- Another program has written a queue's key. Each of its values becomes a message, which no worker can read, and so a dead letter.
-- Nothing is lost in silence, and the queue works again. A type without readable values, such as a stream, is renamed.
local function adopt(queue)
  local key = P .. 'queue:' .. queue
  local kind, clock, values = redis.call('TYPE', key).ok, redis.call('TIME'), nil
  if kind == 'list' then
    values = redis.call('LRANGE', key, 0, -1)
  elseif kind == 'set' then
    values = redis.call('SMEMBERS', key)
  elseif kind == 'hash' then
    values = redis.call('HGETALL', key)
  elseif kind == 'string' then
    values = {redis.call('GET', key)}
  else
    local aside = 'aside:' .. queue .. ':' .. integer(clock[1] * 1000000 + clock[2])
    redis.call('RENAME', key, P .. aside)
    note_unknown(aside)
    return
  end
  redis.call('DEL', key)
  for i, value in ipairs(values) do
    local tag, score = 'foreign-' .. integer(clock[1] * 1000000 + clock[2]) .. '-' .. i, next_score(0)
    redis.call('HSET', message_key(tag), 'payload', value, 'queue', queue, 'priority', 0, 'score', score)
    redis.call('ZADD', key, score, tag)
  end
  redis.call('SADD', P .. 'queues', queue)
end

-- Scores and tags in turn. The caller wakes the workers.
local function all_ready(queue, places)
  local answer = redis.pcall('ZADD', P .. 'queue:' .. queue, unpack(places))
  if type(answer) == 'table' and answer.err then
    if redis.call('TYPE', P .. 'queue:' .. queue).ok == 'zset' then return error(answer.err) end
    adopt(queue)
    redis.call('ZADD', P .. 'queue:' .. queue, unpack(places))
  end
end

-- For a stored message; `score`: its place in the queue.
local function make_ready(tag, queue, score)
  if not score then return end
  all_ready(queue, {score, tag})
  wake(queue)
end

local function pop_ready(queue, count)
  local popped = redis.pcall('ZPOPMIN', P .. 'queue:' .. queue, count)
  if not popped.err then return popped end
  adopt(queue)
  return redis.call('ZPOPMIN', P .. 'queue:' .. queue, count)
end

-- The visibility of a message if the caller does not give it. No living worker is silent for that long, whatever its lease; see
-- `core/lease_timings.py`.
local VISIBILITY = 33000 -- ms

-- Repair a message that is in none of the three sets, since somebody deleted a key. If a worker holds it, the worker gets the
-- usual time for a heartbeat. Otherwise it is ready, or due at `due`, in ms. Returns whether it was repaired.
local function find_place(tag, queue, score, visibility, due)
  if not queue or queue == '' or not score then return false end -- another program's message, without a queue
  for _, place in ipairs({'queue:', 'inflight:', 'delayed:'}) do
    local found = redis.pcall('ZSCORE', P .. place .. queue, tag)
    if type(found) == 'string' then return false end
  end
  if redis.call('PTTL', message_key(tag)) >= 0 then return false end -- a reply, which expires with its queue
  if redis.call('HEXISTS', P .. 'receipts', tag) == 1 then
    local clock = redis.call('TIME')
    redis.call('ZADD', P .. 'inflight:' .. queue, integer(clock[1] * 1000 + math.floor(clock[2] / 1000) + visibility), tag)
  elseif due then
    redis.call('ZADD', P .. 'delayed:' .. queue, due, tag)
    wake(queue)
  else
    make_ready(tag, queue, score)
  end
  redis.call('SADD', P .. 'queues', queue)
  return true
end
