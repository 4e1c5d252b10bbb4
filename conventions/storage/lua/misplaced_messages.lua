#!lua flags=allow-oom
-- uses queues claims common
-- Find messages that are in no set, since somebody deleted a key. The sweep handles those that a worker may hold.
-- KEYS: prefix
-- ARGV: tags
-- Returns for each such message {tag, payload, or '' if the payload is long}
local found = {}
for _, tag in ipairs(ARGV) do
  local key, queue = message_key(tag), nil
  local kind = redis.call('TYPE', key).ok
  if is_unknown(tag) then
    note_unknown('message:' .. tag)
  elseif kind == 'hash' then
    queue = redis.call('HGET', key, 'queue')
  elseif kind == 'string' then -- its payload may be large
    queue = string.match(redis.call('GETRANGE', key, 0, 300), '^%d+\31([^\31]*)\31')
  end
  if queue and queue ~= '' and redis.call('PTTL', key) < 0 and redis.call('HEXISTS', P .. 'receipts', tag) == 0 then
    local known = false
    for _, place in ipairs({'queue:', 'inflight:', 'delayed:'}) do
      local score = redis.pcall('ZSCORE', P .. place .. queue, tag)
      known = known or type(score) == 'string'
    end
    if not known then found[#found + 1] = {tag, select(6, sent(tag)) or ''} end
  end
end
return found
