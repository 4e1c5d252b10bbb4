#!lua flags=allow-oom
-- uses layout queues claims common
-- Mark a message as cancelled; claims and progress read the mark.
-- KEYS: prefix
-- ARGV: message id, ms to keep the mark
-- Returns 'queued' (it will not run), 'running' (it is told at its next report of progress) or 'too late'
-- Error: NEWERLAYOUT
local id = ARGV[1]
local score, queue, _, _, generation, payload = sent(id)

-- Whether it is not due only because of the limit or the pause of its task, which is no time of its own.
local function is_held_back()
  local is_read, message = pcall(cjson.decode, payload or '')
  local headers = is_read and type(message) == 'table' and message.headers
  if type(headers) ~= 'table' or type(headers.task) ~= 'string' then return false end
  for _, why in ipairs({'limited:', 'paused:'}) do
    if type(redis.pcall('ZSCORE', P .. why .. headers.task, id)) == 'string' then return true end
  end
  return false
end

redis.call('SET', P .. 'cancel:' .. id, generation or 0, 'PX', ARGV[2])
local place = place_of(id)
if not place then return 'too late' end
local due = queue and redis.call('ZSCORE', P .. 'delayed:' .. queue, id)
if due then
  if not is_held_back() then redis.call('SET', P .. 'was_due:' .. id, due, 'PX', ARGV[2]) end
  make_ready(id, queue, score) -- due now, so that its end is recorded at once
  redis.call('ZREM', P .. 'delayed:' .. queue, id)
end
return place == 'running' and 'running' or 'queued'
