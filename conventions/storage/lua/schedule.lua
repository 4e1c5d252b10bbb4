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

local function note_audit(audit)
  if audit ~= '' then redis.call('XADD', P .. 'journal', '*', 'deed', audit, 'at', integer(now)) end
end
