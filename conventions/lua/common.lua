-- What the scripts of messages and claims share, beside `queues` and `claims`, which come before it. Sending does without: the server makes
-- all functions anew at each call.
-- KEYS: the prefix
-- ARGV: those of the script that uses this
-- Returns nothing by itself
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local micros = clock[1] * 1000000 + clock[2]

local PARK_AT_MOST = 30000 -- ms
local COMES_AGAIN = 1000 -- ms; twice as long each time, up to a minute

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
  local holder, state = peek(P .. 'claim:' .. headers.task .. ':' .. headers.x_key)
  if holder ~= receipt or state == 'released' then return 'waiting' end
  return state == 'running' and 'running' or false
end

-- How a claim names the one that it follows in a group: by token and name. A field of more than 64 bytes would make the
-- claim twice as large, so the task is left away where it is the same.
local function behind(token, other, claim)
  local task = string.match(claim, '^.-:') or ''
  if string.sub(other, 1, #task) == task then return token .. ' :' .. string.sub(other, #task + 1) end
  return token .. ' ' .. other
end

-- Starts of a claim without an outcome. In a group, nobody counts the start of a job that follows a success: `after` names
-- that job, see `behind`.
local function starts_of(claim, starts, after)
  starts = tonumber(starts or 0)
  if starts > 0 or not after or after == '' then return starts end
  local token, other = string.match(after, '^(%S*) (.*)$')
  if string.sub(other, 1, 1) == ':' then other = (string.match(claim, '^.-:') or '') .. string.sub(other, 2) end
  local holder, state = peek(P .. 'claim:' .. other)
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
