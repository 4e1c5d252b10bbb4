-- What the scripts share that return messages whose jobs had begun.
-- KEYS: the prefix
-- ARGV: those of the script that uses this
-- Returns nothing by itself

-- A time as ISO 8601 in UTC, from ms since the epoch. The date by the civil calendar, whose years begin in March (Hinnant, days_from_civil).
local function moment(ms)
  local days, rest = math.floor(ms / 86400000) + 719468, ms % 86400000
  local era = math.floor(days / 146097)
  local day = days - era * 146097
  local year = math.floor((day - math.floor(day / 1460) + math.floor(day / 36524) - math.floor(day / 146096)) / 365)
  day = day - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = math.floor((5 * day + 2) / 153)
  day = day - math.floor((153 * month + 2) / 5) + 1
  year = year + era * 400 + (month < 10 and 0 or 1)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%03d+00:00', year, month < 10 and month + 3 or month - 9, day,
    math.floor(rest / 3600000), math.floor(rest / 60000) % 60, math.floor(rest / 1000) % 60, rest % 1000)
end

-- What a message has waited and run before is no wait of its next start: note from when on, in ms, it lacks nothing but a worker. Its
-- changed headers are JSON of other programs' texts, too, so they are not read and written: of a name that comes twice the last one counts.
local function ready_again(tag, at)
  local header = '"x_conventions_ready_at":"' .. moment(at) .. '"}'
  local changes = history(tag, 'changes') or ''
  local last = string.sub(changes, -100) -- an earlier one is the last of them; a pattern over all would take its time with many spaces
  local place = string.find(last, ',?%s?"x_conventions_ready_at"%s?:%s?"[^"]*"}$')
  if place then changes = string.sub(changes, 1, #changes - #last + place - 1) .. '}' end
  if #changes <= 2 or string.sub(changes, 1, 1) ~= '{' or string.sub(changes, -1) ~= '}' then
    change(tag, 'changes', '{' .. header)
  else
    change(tag, 'changes', string.sub(changes, 1, -2) .. ',' .. header)
  end
end

-- Whether the job of a message that nobody has given a sign of life of had begun. A large one is not looked into: that takes its time, for many.
local function had_begun(tag)
  local receipt = redis.call('HGET', P .. 'receipts', tag)
  if receipt and redis.call('HGET', P .. 'started', tag) == receipt then return true end
  local payload = select(6, sent(tag))
  return payload and #payload <= 16384 and place_of(tag) == 'running'
end

local MOST_NOTED = 10000 -- the latest

-- Note a message whose start may have no outcome, for whoever writes that to the journal before the next start. Where another program has
-- written the key, nothing is noted: the claim keeps the start.
local function note_interrupted(tag)
  local key = P .. 'interrupted'
  local added = redis.pcall('ZADD', key, integer(now), tag)
  if type(added) == 'table' then return end
  redis.call('ZREMRANGEBYSCORE', key, '(' .. integer(now), '+inf') -- of another clock, or another program
  redis.call('ZREMRANGEBYRANK', key, 0, -MOST_NOTED - 1)
  redis.call('PEXPIRE', key, 86400000)
end
