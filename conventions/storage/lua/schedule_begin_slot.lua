#!lua flags=allow-oom
-- uses queues claims common schedule schedule_runs
-- Begin to send a slot, or a run by hand, unless it was already sent or must not be sent.
-- KEYS: prefix
-- ARGV: schedule, message id, slot in seconds since the epoch ('' by hand), key of beat's lock, its token, ms that it is
--       kept from now, 'allow', 'skip' where no two runs may overlap or
--       'beside' for one that may all the same, '1' where the broker is this server, ms to remember a run, audit entry as JSON or '';
--       by hand: its actor, and id of the last run by hand that he has seen, or ''
-- Returns {'go', ms of the first try}, {'sent'} (already sent, or given up), {'paused'}, {'lost'} (another beat leads, or
-- has led), {'live', id of a run that has not ended} or {'just', id, actor} of a run by hand in the same moment
local name, id, slot, lock, token, lock_for, overlap, here, keep, audit, actor, seen = unpack(ARGV)
local entry = entry_of(name)
local BEGINNING = 60000 -- ms until the message of a begun run must be there
if slot ~= '' then
  local holder = redis.call('GET', lock)
  -- The schedule was removed while this beat slept. The next leader writes what its own list says.
  if holder and holder ~= token or redis.call('HEXISTS', entry, 'gone') == 1 then return {'lost'} end
  redis.call('SET', lock, token, 'PX', lock_for) -- also if it has expired and nobody has taken it
  if tonumber(slot) <= tonumber(redis.call('HGET', entry, 'cursor') or -1) then return {'sent'} end
  if redis.call('HEXISTS', P .. 'schedule:paused', name) == 1 then return {'paused'} end
end
local other = overlap ~= 'allow' and live_run(name, id, here == '1')
if other and overlap == 'skip' then return {'live', other} end
if slot == '' then
  local claim = P .. 'schedule:by_hand:' .. name -- two people, or two forms, in the same moment: one of them runs it
  local just, who = string.match(redis.call('GET', claim) or '', '^([^\31]*)\31(.*)$')
  if just and just ~= seen then return {'just', just, who} end
  redis.call('SET', claim, id .. '\31' .. actor, 'PX', BEGINNING)
end
if overlap ~= 'allow' then
  local runs = P .. 'schedule:live:' .. name
  redis.call('ZADD', runs, integer(now), id)
  redis.call('PEXPIRE', runs, keep)
  redis.call('SET', P .. 'live:' .. id, name, 'PX', here == '1' and BEGINNING or keep)
end
note_audit(audit)
if slot == '' then return {'go', integer(now)} end
local its_slot, since = string.match(redis.call('HGET', entry, 'begun') or '', '^(%d+):(%d+)$')
if its_slot ~= slot then
  since = integer(now)
  redis.call('HSET', entry, 'begun', slot .. ':' .. since)
end
return {'go', since}
