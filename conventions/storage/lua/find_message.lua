#!lua flags=allow-oom
-- uses queues claims common
-- What is known of a message that has not ended.
-- KEYS: prefix
-- ARGV: its id, which is its tag unless another message with this id was there
-- Returns nothing if it is not here; else {place, queue, payload, generation, attempt that comes next or '0', changed headers as JSON or '',
-- number, why}
--   place: 'ready' | 'delayed' | 'held', by a worker that has not begun it | 'running' | 'ended', and only its worker must acknowledge it |
--     'later': a later release has written it
--   number: of a ready one, how many messages come before it; of a delayed one, when it is due, in ms since the epoch
--   why: of a delayed one 'key', which is in use, 'rate', the limit of its task, 'pause' of its task, or ''
local tag = ARGV[1]
if redis.call('EXISTS', message_key(tag)) == 0 then
  tag = redis.pcall('GET', P .. 'copy:' .. tag)
  if type(tag) ~= 'string' or redis.call('EXISTS', message_key(tag)) == 0 then return end
end
if is_unknown(tag) then return {'later', '', '', '0', '0', '', '0', ''} end
local _, queue, _, _, generation, payload = sent(tag)
queue, payload = queue or '', payload or ''
local attempt, changes = history(tag, 'attempt', 'changes')
local place, number, why = 'held', 0, ''

-- Why it is not due. Its claim and its task stand in its headers.
local function reason()
  local is_read, message = pcall(cjson.decode, payload)
  local headers = is_read and type(message) == 'table' and message.headers
  if type(headers) ~= 'table' or type(headers.task) ~= 'string' then return '' end
  local limited = redis.pcall('ZSCORE', P .. 'limited:' .. headers.task, tag)
  if type(limited) == 'string' then return 'rate' end
  local paused = redis.pcall('ZSCORE', P .. 'paused:' .. headers.task, tag)
  if type(paused) == 'string' then return 'pause' end
  if type(headers.x_key) ~= 'string' then return '' end
  local parked = redis.pcall('SISMEMBER', P .. 'parked:' .. headers.task .. ':' .. headers.x_key, tag)
  return parked == 1 and 'key' or ''
end

if redis.call('HEXISTS', P .. 'receipts', tag) == 1 then
  local found = place_of(tag)
  if found ~= 'waiting' then place = found or 'ended' end
else
  local due = redis.pcall('ZSCORE', P .. 'delayed:' .. queue, tag)
  if type(due) == 'string' then
    place, number, why = 'delayed', due, reason()
  else
    local rank = redis.pcall('ZRANK', P .. 'queue:' .. queue, tag)
    place, number = 'ready', type(rank) == 'number' and rank or 0
  end
end
return {place, queue, payload, generation or '0', attempt or '0', changes or '', tostring(number), why}
