#!lua flags=allow-oom
-- uses layout queues claims common
-- Deliver ready messages, each with a new receipt.
-- KEYS: prefix
-- ARGV: how many, how many of those queues of which only few are wanted, ms until a message goes to another when nothing
--       is heard, start of the receipts, bytes after which no more messages are added that are not small (0: none at all; else one always is),
--       how many are looked at together; then for each queue: its name, '1' when its messages need no acknowledgement, and '1' when only few are wanted
-- Returns {ms until a delayed message is due or -1, messages, and, if there are any: queues whose next message is one too many in bytes}; a message is
-- {tag, queue, all that was sent, receipt}, see `SENT`; where more is known of it {tag, queue, payload, receipt, deliveries, changes, 1 where it must run
-- alone}
-- Error: NEWERLAYOUT
local limit, few, visibility, receipts = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local found = {}
local bytes, at_once = tonumber(ARGV[5]), tonumber(ARGV[6])
local has_large = bytes == 0

-- A message with more data than was sent; nil if its form is not known here. If there is no message, another program wrote the tag:
-- the tag becomes the message, which no worker can read.
local function changed(tag, queue, score)
  local key = message_key(tag)
  local fields = redis.pcall('HMGET', key, 'payload', 'changes', 'deliveries', 'alone', 'form')
  if fields.err or fields[5] or (not fields[1] and redis.call('EXISTS', key) == 1) then return end
  local payload, changes, delivered, alone = fields[1], fields[2], fields[3], fields[4]
  if not payload then
    payload, tag = tag, 'foreign-' .. integer(micros) .. '-z' .. #found
    redis.call('SADD', P .. 'queues', queue)
    redis.call('HSET', message_key(tag), 'payload', payload, 'queue', queue, 'priority', 0, 'score', score)
  end
  return {tag, queue, payload, '', (tonumber(delivered or 0) or 0) + 1, changes or '', alone and 1 or 0}
end

-- Returns how many were put back.
local function hand_out(queue, popped, unacknowledged)
  local keys, held, receipts_of, rest, is_full = {}, {}, {}, {}, false
  for i = 1, #popped, 2 do keys[#keys + 1] = message_key(popped[i]) end
  local values = redis.call('MGET', unpack(keys))
  if unacknowledged then
    for i, value in ipairs(values) do -- a reply may have expired
      local tag, key = popped[2 * i - 1], keys[i]
      local message = value and not is_later(value) and {tag, queue, value, ''}
      if not value and redis.call('EXISTS', key) == 1 then message = changed(tag, queue, popped[2 * i]) end
      if message then
        found[#found + 1] = message
        redis.call('DEL', key)
      elseif redis.call('EXISTS', key) == 1 then
        leave_unknown(tag, queue)
      end
    end
    return 0
  end
  for i, value in ipairs(values) do
    local tag, receipt = popped[2 * i - 1], receipts .. '-' .. #found
    local message
    if not value then
      message = changed(tag, queue, popped[2 * i])
    elseif not is_later(value) then
      message = {tag, queue, value}
    end
    local size = message and #message[3] or 0
    if size > 4096 then -- `SMALL` of redis_qos.py: smaller messages are limited by their number only
      is_full = is_full or (size > bytes and has_large)
      if not is_full then bytes, has_large = bytes - size, true end
    end
    if message and is_full then -- skip also the messages behind it: first come, first served
      rest[#rest + 1], rest[#rest + 2] = popped[2 * i], message[1]
    elseif message then
      message[4] = receipt
      found[#found + 1] = message
      held[#held + 1], held[#held + 2] = integer(now + visibility), message[1]
      receipts_of[#receipts_of + 1], receipts_of[#receipts_of + 2] = message[1], receipt
    else
      leave_unknown(tag, queue)
    end
  end
  if #rest > 0 then all_ready(queue, rest) end
  if #held > 0 then
    redis.call('ZADD', P .. 'inflight:' .. queue, unpack(held))
    redis.call('HSET', P .. 'receipts', unpack(receipts_of))
  end
  return #rest / 2
end

-- Make due messages ready.
local due = -1
local function look_ahead(queue)
  local delayed = P .. 'delayed:' .. queue
  local first = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2]
  if first and tonumber(first) <= now then
    promote(queue, 1000)
    first = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2]
  end
  if first then
    local wait = math.max(tonumber(first) - now, 0)
    if due < 0 or wait < due then due = wait end
  end
end

local queues = (#ARGV - 6) / 3
local empty, left, is_left = {}, {}, {}
for i = 7, #ARGV, 3 do look_ahead(ARGV[i]) end
for _, share in ipairs({math.ceil(limit / queues), limit}) do -- first each queue gets its share, then queues with more messages get the rest
  for i = 7, #ARGV, 3 do
    local count = math.min(share, limit - #found)
    if ARGV[i + 2] == '1' then count = math.min(count, few) end
    while count > 0 and not empty[i] and not is_left[i] do
      local some = math.min(count, at_once)
      local popped = pop_ready(ARGV[i], some)
      local back = #popped > 0 and hand_out(ARGV[i], popped, ARGV[i + 1] == '1') or 0
      if ARGV[i + 2] == '1' then few = few - #popped / 2 + back end
      empty[i] = #popped < 2 * some and back == 0
      if back > 0 then is_left[i], left[#left + 1] = true, ARGV[i] end
      count = count - some
    end
  end
end

for i = 7, #ARGV, 3 do
  if not empty[i] and redis.call('EXISTS', P .. 'queue:' .. ARGV[i]) == 1 then -- so that the next idle worker looks, too
    wake(ARGV[i])
    if ARGV[i + 1] == '1' then redis.call('PEXPIRE', P .. 'wake:' .. ARGV[i], 60000) end -- perhaps nobody reads replies
  end
end
if #left > 0 then return {integer(due), found, left} end
return {integer(due), found}
