-- What the scripts of messages and claims share, beside `queues` and `claims`, which come before it. `publish` does not use this
-- part: the server creates all functions again at each call.
-- KEYS: the prefix
-- ARGV: those of the script that uses this
-- Returns nothing by itself
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local micros = clock[1] * 1000000 + clock[2]

local PARK_AT_MOST = 30000 -- ms
local COMES_AGAIN = 1000 -- ms until a message comes again; doubled each time, up to a minute
local UNKNOWN_WAITS = 30000 -- ms that a message in an unknown form waits before the next look
local NOBODY = '-' -- a token that no delivery has

-- Fields of a message that were added after it was sent. Nothing while the message is still a string.
local function history(tag, ...)
  if redis.call('TYPE', message_key(tag)).ok == 'hash' then return unpack(redis.call('HMGET', message_key(tag), ...)) end
end

-- Whether a message is a string that we wrote.
local function is_sent(tag)
  local key = message_key(tag)
  return redis.call('TYPE', key).ok == 'string' and string.find(redis.call('GETRANGE', key, 0, 16), '^%d+\31$') ~= nil
end

-- Whether a message exists in an unknown form.
local function is_unknown(tag)
  local key = message_key(tag)
  local kind = redis.call('TYPE', key).ok
  if kind == 'string' then return is_later(redis.call('GETRANGE', key, 0, 15)) end
  if kind == 'hash' then return redis.call('HEXISTS', key, 'form') == 1 or redis.call('HEXISTS', key, 'payload') == 0 end
  return kind ~= 'none'
end

-- Set fields of a message, if it exists. A message in an unknown form stays as it is.
local function change(tag, ...)
  if is_unknown(tag) then return end
  local key = message_key(tag)
  local kind = redis.call('TYPE', key).ok
  if kind == 'none' then return end
  if kind == 'string' then
    local score, queue, priority, digest, generation, payload = sent(tag)
    redis.call('DEL', key)
    write_hash(key, score or next_score(0), queue or '', priority or 0, digest or '', generation or 0, payload)
  end
  redis.call('HSET', key, ...)
end

-- The score of a message in the ready set. Nothing if the message does not exist.
local function score_of(tag)
  local key = message_key(tag)
  local kind = redis.call('TYPE', key).ok
  if kind == 'hash' then return redis.call('HGET', key, 'score') or next_score(0) end
  if kind == 'none' then return nil end
  if kind ~= 'string' then return next_score(0) end -- an unknown form
  local score = redis.call('GETRANGE', key, 0, 15)
  return tonumber(score) and score or next_score(0) -- another program wrote it
end

local function make_delayed(tag, queue, wait, awake)
  redis.call('ZADD', P .. 'delayed:' .. queue, integer(now + wait), tag)
  if not awake then wake(queue) end -- the idle worker must learn when to wake next
end

-- Record a tag as lost: somebody has deleted its message, and nothing else is known of it.
local function note_lost(tag, queue)
  local event = {message_id = tag, kind = 'lost', queue = queue, token = 'lost-' .. integer(micros)}
  event.failure = {error = 'Lost', error_message = 'its message is gone from Redis', traceback = '', fingerprint = ''}
  redis.call('XADD', P .. 'journal', '*', 'event', cjson.encode(event), 'fence', '0', 'at', integer(now))
end

-- Move delayed messages that are due to the ready set, behind those that are there. Returns how many moved.
local function promote(queue, limit)
  local due = redis.call('ZRANGEBYSCORE', P .. 'delayed:' .. queue, '-inf', now, 'LIMIT', 0, limit)
  for _, tag in ipairs(due) do
    local score = score_of(tag)
    if score then
      score = next_score(9 - math.floor(score / STEP))
      make_ready(tag, queue, score)
      if is_sent(tag) then
        redis.call('SETRANGE', message_key(tag), 0, string.format('%016.0f', score))
      else
        change(tag, 'score', score)
      end
    else
      note_lost(tag, queue)
    end
    redis.call('ZREM', P .. 'delayed:' .. queue, tag)
  end
  return #due
end

-- Whether the holder of this receipt holds the message. A stale receipt changes nothing.
local function holds(tag, receipt)
  return tag ~= '' and redis.call('HGET', P .. 'receipts', tag) == receipt
end

-- Count a delivery that was neither given back nor started.
local function count_delivery(tag)
  local receipt = redis.call('HGET', P .. 'receipts', tag)
  if receipt and redis.call('HGET', P .. 'started', tag) ~= receipt then
    change(tag, 'deliveries', tonumber(history(tag, 'deliveries') or 0) + 1)
  end
end

-- Take a message from its worker. The caller has put it into its new place before.
local function let_go(tag, queue)
  redis.call('ZREM', P .. 'inflight:' .. queue, tag)
  redis.call('HDEL', P .. 'receipts', tag)
  redis.call('HDEL', P .. 'started', tag)
end

-- Delay a message in an unknown form that was taken from the ready set. Another worker may know the form.
local function leave_unknown(tag, queue)
  make_delayed(tag, queue, UNKNOWN_WAITS + clock[2] % 1000, true)
  note_unknown('message:' .. tag)
end

-- Deliver a message again: nobody has recorded its end. The count of deliveries limits how often. Returns when, in ms.
local function come_again(tag, queue)
  local wait = math.min(COMES_AGAIN * 2 ^ tonumber(history(tag, 'deliveries') or 0), 60000)
  make_delayed(tag, queue, wait)
  count_delivery(tag)
  let_go(tag, queue)
  return now + wait
end

local function remove(tag, queue, receipt)
  if not holds(tag, receipt) then return false end
  let_go(tag, queue)
  redis.call('DEL', message_key(tag))
  return true
end

-- Where a message is: 'waiting'; 'running', from the moment its claim is granted; or false after its end.
local function place_of(tag)
  if redis.call('EXISTS', message_key(tag)) == 0 then return false end
  local receipt = redis.call('HGET', P .. 'receipts', tag)
  if not receipt then return 'waiting' end
  if receipt == redis.call('HGET', P .. 'started', tag) then return 'running' end
  local payload = select(6, sent(tag))
  -- A claim that is granted to a group changes nothing in the message, so look at the claim.
  local is_read, message = pcall(cjson.decode, payload)
  local headers = is_read and type(message) == 'table' and message.headers
  if type(headers) ~= 'table' or type(headers.task) ~= 'string' or type(headers.x_key) ~= 'string' then return 'waiting' end
  local holder, state = peek(P .. 'claim:' .. headers.task .. ':' .. headers.x_key)
  if holder ~= receipt or state == 'released' then return 'waiting' end
  return state == 'running' and 'running' or false
end

-- The value of `after`: it names the claim of the job before this one in its group, by token and name. If both are of one task,
-- the task is left out: a field of more than 64 bytes would double the size of the claim.
local function behind(token, other, claim)
  local task = string.match(claim, '^.-:') or ''
  if string.sub(other, 1, #task) == task then return token .. ' :' .. string.sub(other, #task + 1) end
  return token .. ' ' .. other
end

-- The number of starts without an outcome. In a group, a job that begins after a success does not count its own start. Then
-- `after` names the job before it (see `behind`): if that job succeeded, this one has started.
local function starts_of(claim, starts, after)
  starts = tonumber(starts or 0)
  if starts > 0 or not after or after == '' then return starts end
  local token, other = string.match(after, '^(%S*) (.*)$')
  if string.sub(other, 1, 1) == ':' then other = (string.match(claim, '^.-:') or '') .. string.sub(other, 2) end
  local holder, state = peek(P .. 'claim:' .. other)
  return (holder == token and state == 'done') and 1 or 0
end

-- A message waits for its key until it is due. This is for those who count: nothing else depends on it.
local function note_parked(tag, queue, wait)
  redis.call('ZADD', P .. 'parked_in:' .. queue, integer(now + wait), tag)
  redis.call('PEXPIRE', P .. 'parked_in:' .. queue, 2 * PARK_AT_MOST)
end

-- Make the messages ready that are parked for this claim.
local function wake_parked(claim)
  local parked = redis.call('SPOP', P .. 'parked:' .. claim, 1000)
  if #parked > 0 then redis.call('HDEL', P .. 'claim:' .. claim, 'awaited') end
  for _, tag in ipairs(parked) do
    local score, queue = sent(tag)
    if queue and redis.call('ZSCORE', P .. 'delayed:' .. queue, tag) then
      make_ready(tag, queue, score)
      redis.call('ZREM', P .. 'delayed:' .. queue, tag)
      redis.call('ZREM', P .. 'parked_in:' .. queue, tag)
    end
  end
end

-- End a claim from outside. Its job may go on, but nobody has this token, so nothing that it records counts any more.
local function take_from_holder(claim)
  redis.call('HSET', P .. 'claim:' .. claim, 'state', 'released', 'until', 0, 'starts', 0, 'after', '', 'token', NOBODY)
  wake_parked(claim)
end
