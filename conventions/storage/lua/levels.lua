#!lua flags=allow-oom
-- uses queues claims common
-- How many messages queues have, and the first ready message of each priority, which is the oldest of it.
-- KEYS: prefix
-- ARGV: queues
-- Returns ms since the epoch by the server's clock, then for each queue {ready, delayed, of these parked, in flight, and for each first
-- message in turn (a number of -1: the key is of another type) its payload and its changed headers as JSON, or ''}
local answers = {integer(now)}
for _, queue in ipairs(ARGV) do
  local function count(command, place, ...)
    local found = redis.pcall(command, P .. place .. queue, ...)
    return type(found) == 'number' and found or -1 -- another program has written the key
  end
  local one = {count('ZCARD', 'queue:'), count('ZCARD', 'delayed:'), count('ZCOUNT', 'parked_in:', now, '+inf'), count('ZCARD', 'inflight:')}
  for band = 0, one[1] > 0 and 9 or -1 do
    local first = redis.call('ZRANGEBYSCORE', P .. 'queue:' .. queue, integer(band * STEP), '(' .. integer((band + 1) * STEP), 'LIMIT', 0, 1)
    local tag = first[1]
    if tag and not is_unknown(tag) then
      local payload = select(6, sent(tag))
      if payload then one[#one + 1], one[#one + 2] = payload, history(tag, 'changes') or '' end
    end
  end
  answers[#answers + 1] = one
end
return answers
