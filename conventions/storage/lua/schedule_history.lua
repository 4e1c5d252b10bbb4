-- The history of a schedule, `schedule:history:<name>`: what became of its slots, newest first.
-- KEYS: the prefix
-- ARGV: those of the script that uses this
-- Returns nothing by itself

-- Add a line to the history. Consecutive slots that are not sent for one reason share a line.
local function remember(name, line, most)
  local history = P .. 'schedule:history:' .. name
  local new, newest = cjson.decode(line), redis.call('LINDEX', history, 0)
  if newest and (new.what == 'skipped' or new.what == 'missed') then
    local before = cjson.decode(newest)
    if before.what == new.what and before.note == new.note then
      new.count = before.count + new.count
      new.first_at = before.first_at ~= cjson.null and before.first_at or before.planned_at
      redis.call('LSET', history, 0, cjson.encode(new))
      return
    end
  end
  redis.call('LPUSH', history, line)
  redis.call('LTRIM', history, 0, most - 1)
end
