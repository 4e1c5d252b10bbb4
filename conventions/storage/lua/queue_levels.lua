#!lua flags=allow-oom
-- uses queues claims common
-- How many messages queues have, and of each priority the ready message that has waited longest: the first one, unless that came back from a
-- worker, or is tried again, and so waits since then. Then also the first of the next `BEHIND` that is not so.
-- KEYS: prefix
-- ARGV: queues
-- Returns ms since the epoch by the server's clock, then for each queue {ready, delayed, of these parked, in flight, and for each such
-- message in turn (a number of -1: the key is of another type) its payload and its changed headers as JSON, or ''}
local BEHIND = 100
local answers = {integer(now)}
for _, queue in ipairs(ARGV) do
  local function count(command, place, ...)
    local found = redis.pcall(command, P .. place .. queue, ...)
    return type(found) == 'number' and found or -1 -- another program has written the key
  end
  local one = {count('ZCARD', 'queue:'), count('ZCARD', 'delayed:'), count('ZCOUNT', 'parked_in:', now, '+inf'), count('ZCARD', 'inflight:')}
  for band = 0, one[1] > 0 and 9 or -1 do
    local function tags(from, most)
      return redis.call('ZRANGEBYSCORE', P .. 'queue:' .. queue, integer(band * STEP), '(' .. integer((band + 1) * STEP), 'LIMIT', from, most)
    end
    local function add(tag, is_first) -- returns whether it waits since it was sent
      if not tag or is_unknown(tag) then return false end
      local payload, changes = select(6, sent(tag)), history(tag, 'changes') or ''
      local is_so = payload and not string.find(changes, '"x_conventions_ready_at"', 1, true)
      if payload and (is_first or is_so) then one[#one + 1], one[#one + 2] = payload, changes end
      return is_so
    end
    local first = tags(0, 1)[1]
    if first and not add(first, true) then
      for _, tag in ipairs(tags(1, BEHIND)) do
        if add(tag, false) then break end
      end
    end
  end
  answers[#answers + 1] = one
end
return answers
