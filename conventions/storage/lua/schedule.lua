-- What the scripts of schedules share. A schedule's entry is RedBeat's hash, `redbeat:<name>`, with fields of ours:
--   cursor   the latest slot that was sent or given up, s    meta      the same in RedBeat's own form
--   begun    `<slot>:<ms>`: a slot that may be under way, and when its sending began first
--   last     the last message that was sent, as JSON         fault     why the last try failed
--   gone     '1' when it is no longer in the list, for as long as it may come back as the same one
-- `schedule:history:<name>`: what became of its slots, newest first. `schedule:live:<name>`: runs that may not have ended, if runs
-- may not overlap. `live:<id>` marks one of them until its message is there, or until its end if the broker is elsewhere.
-- KEYS: the prefix
-- ARGV: those of the script that uses this
-- Returns nothing by itself
local INDEX = P .. 'redbeat::schedule'

local function entry_of(name) return P .. 'redbeat:' .. name end

-- Move the cursor to a slot, never back; `following` is the next slot, '' when there is none. Returns whether it moved.
local function move(name, slot, following, meta)
  local entry = entry_of(name)
  if tonumber(slot) <= tonumber(redis.call('HGET', entry, 'cursor') or -1) then return false end
  redis.call('HSET', entry, 'cursor', slot, 'meta', meta)
  redis.call('HDEL', entry, 'begun', 'fault')
  if following == '' or redis.call('HEXISTS', entry, 'gone') == 1 then -- the schedule was removed while this beat slept
    redis.call('ZREM', INDEX, entry)
  else
    redis.call('ZADD', INDEX, following, entry)
  end
  return true
end

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

local function note_audit(audit)
  if audit ~= '' then redis.call('XADD', P .. 'journal', '*', 'deed', audit, 'at', integer(now)) end
end

-- Whether a message, or the batch that it began, has not ended yet.
local function is_live(id, here)
  local batch = redis.call('HGET', P .. 'batch:' .. id, 'state')
  if batch == 'splitting' or batch == 'running' then return true end
  return redis.call('EXISTS', P .. 'live:' .. id) == 1 or (here and redis.call('EXISTS', message_key(id)) == 1)
end

-- Another run of the schedule that has not ended, or nil. Ended runs are removed.
local function live_run(name, own, here)
  local runs = P .. 'schedule:live:' .. name
  local last = redis.call('HGET', entry_of(name), 'last') -- it may have begun when runs were allowed to overlap
  local last_id = last and cjson.decode(last).id
  if last_id and last_id ~= own and is_live(last_id, here) then return last_id end
  for _, id in ipairs(redis.call('ZRANGE', runs, 0, -1)) do
    if id ~= own then
      if is_live(id, here) then return id end
      redis.call('ZREM', runs, id)
    end
  end
end
