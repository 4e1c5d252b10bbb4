-- What the scripts of messages and claims share. KEYS[1] is the application's prefix, such as `{conventions}:`.
-- A message is one hash, `message:<tag>`; its tag is in exactly one of three sorted sets of its queue:
--   queue:<queue>     ready; score: priority, then order of arrival
--   delayed:<queue>   score: when it is due, ms
--   inflight:<queue>  held by a worker; score: when it may go to another, ms
-- A script that fails half-way is not rolled back: each adds a message to its new place before it leaves the old one.
-- `wake:<queue>` has one member while an idle worker should look; all times are the server's.
local P = KEYS[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local micros = clock[1] * 1000000 + clock[2]

local STEP = 1e14 -- room for the order of arrival within one priority
local PARK_AT_MOST = 30000 -- ms
local COMES_AGAIN = 1000 -- ms; twice as long each time, up to a minute

local function integer(number) return string.format('%.0f', number) end

local function message_key(tag) return P .. 'message:' .. tag end

local function wake(queue) redis.call('ZADD', P .. 'wake:' .. queue, 0, '1') end

-- Where a message of this priority (0 to 9, 9 first) stands that arrives now.
local function next_score(priority)
  return integer((9 - priority) * STEP + redis.call('INCR', P .. 'sequence'))
end

-- Something else was written under a queue's key. Each of its values becomes a message like any other, which no worker
-- can read, and so a dead letter: nothing is lost in silence, and the queue works again.
local function adopt(queue)
  local key = P .. 'queue:' .. queue
  local kind, values = redis.call('TYPE', key).ok, nil
  if kind == 'list' then
    values = redis.call('LRANGE', key, 0, -1)
  elseif kind == 'set' then
    values = redis.call('SMEMBERS', key)
  elseif kind == 'hash' then
    values = redis.call('HGETALL', key)
  elseif kind == 'string' then
    values = {redis.call('GET', key)}
  else
    values = {'a key of type ' .. kind}
  end
  redis.call('DEL', key)
  for i, value in ipairs(values) do
    local tag, score = 'foreign-' .. integer(micros) .. '-' .. i, next_score(0)
    redis.call('HSET', message_key(tag), 'payload', value, 'queue', queue, 'priority', 0, 'score', score)
    redis.call('ZADD', key, score, tag)
  end
  redis.call('SADD', P .. 'queues', queue)
end

local function make_ready(tag, queue, score, awake)
  local answer = redis.pcall('ZADD', P .. 'queue:' .. queue, score, tag)
  if type(answer) == 'table' and answer.err then
    adopt(queue)
    redis.call('ZADD', P .. 'queue:' .. queue, score, tag)
  end
  if not awake then wake(queue) end
end

local function pop_ready(queue, count)
  local popped = redis.pcall('ZPOPMIN', P .. 'queue:' .. queue, count)
  if not popped.err then return popped end
  adopt(queue)
  return redis.call('ZPOPMIN', P .. 'queue:' .. queue, count)
end

local function make_delayed(tag, queue, wait, awake)
  redis.call('ZADD', P .. 'delayed:' .. queue, integer(now + wait), tag)
  if not awake then wake(queue) end -- the idle worker must learn when to wake next
end

-- Move what is due to the ready messages, behind those that are there; returns how many moved.
local function promote(queue, limit)
  local due = redis.call('ZRANGEBYSCORE', P .. 'delayed:' .. queue, '-inf', now, 'LIMIT', 0, limit)
  for _, tag in ipairs(due) do
    local priority = redis.call('HGET', message_key(tag), 'priority')
    if priority then
      local score = next_score(tonumber(priority))
      make_ready(tag, queue, score)
      redis.call('HSET', message_key(tag), 'score', score)
    end
    redis.call('ZREM', P .. 'delayed:' .. queue, tag)
  end
  return #due
end

-- Whether the message is in the hands that `receipt` names. A stale receipt touches nothing.
local function holds(tag, receipt)
  return tag ~= '' and redis.call('HGET', message_key(tag), 'receipt') == receipt
end

-- Out of the worker's hands; the caller has put the message into another place before.
local function let_go(tag, queue)
  redis.call('ZREM', P .. 'inflight:' .. queue, tag)
  redis.call('HDEL', message_key(tag), 'receipt', 'started')
end

-- Nobody has recorded how it ended: it comes again, and not for ever, since its deliveries are counted.
local function come_again(tag, queue)
  local deliveries = tonumber(redis.call('HGET', message_key(tag), 'deliveries') or 1)
  make_delayed(tag, queue, math.min(COMES_AGAIN * 2 ^ math.max(deliveries - 1, 0), 60000))
  let_go(tag, queue)
end

local function remove(tag, queue, receipt)
  if not holds(tag, receipt) then return false end
  redis.call('ZREM', P .. 'inflight:' .. queue, tag)
  redis.call('DEL', message_key(tag))
  return true
end

-- Where a message is: 'waiting', 'running', which is from when its claim is granted, or false when it has ended.
local function place_of(tag)
  local queue, receipt, started, payload = unpack(
    redis.call('HMGET', message_key(tag), 'queue', 'receipt', 'started', 'payload'))
  if not queue then return false end
  if not receipt then return 'waiting' end
  if receipt == started then return 'running' end
  -- The claims of a group are granted with nothing written to its messages.
  local is_read, message = pcall(cjson.decode, payload)
  local headers = is_read and type(message) == 'table' and message.headers
  if type(headers) ~= 'table' or type(headers.task) ~= 'string' or type(headers.x_key) ~= 'string' then return 'waiting' end
  local holder, state = unpack(
    redis.call('HMGET', P .. 'claim:' .. headers.task .. ':' .. headers.x_key, 'token', 'state'))
  if holder ~= receipt or state == 'released' then return 'waiting' end
  return state == 'running' and 'running' or false
end

-- Starts of a claim without an outcome. In a group, nobody counts the start of a job that follows a success: `after` names
-- that job's token and claim.
local function starts_of(starts, after)
  starts = tonumber(starts or 0)
  if starts > 0 or not after or after == '' then return starts end
  local token, claim = string.match(after, '^(%S*) (.*)$')
  local holder, state = unpack(redis.call('HMGET', P .. 'claim:' .. claim, 'token', 'state'))
  return (holder == token and state == 'done') and 1 or 0
end

-- What waits for this claim looks again at once.
local function wake_parked(claim)
  local parked = redis.call('SPOP', P .. 'parked:' .. claim, 1000)
  if #parked > 0 then redis.call('HDEL', P .. 'claim:' .. claim, 'awaited') end
  for _, tag in ipairs(parked) do
    local queue, score = unpack(redis.call('HMGET', message_key(tag), 'queue', 'score'))
    if queue and redis.call('ZSCORE', P .. 'delayed:' .. queue, tag) then
      make_ready(tag, queue, score)
      redis.call('ZREM', P .. 'delayed:' .. queue, tag)
    end
  end
end
