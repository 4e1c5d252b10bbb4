#!lua flags=allow-oom
-- uses queues claims common schedule schedule_history
-- End a schedule's pause. The slots that it held back are skipped.
-- KEYS: prefix
-- ARGV: schedule, since when it was paused ('' for whatever pause there is), new cursor and next slot in seconds since
--       the epoch (the latter '' when there is none), RedBeat's meta as JSON, line of the history as JSON or '', lines to
--       keep, audit entry as JSON
-- Returns 1, or 0 when there was no such pause
local name, since, slot, following, meta, line, most, audit = unpack(ARGV)
local paused = redis.call('HGET', P .. 'schedule:paused', name)
if not paused or (since ~= '' and cjson.decode(paused).since ~= since) then return 0 end
local known = redis.call('HEXISTS', entry_of(name), 'definition') == 1 -- the slots of a schedule that no beat has seen do not count yet
if known and move(name, slot, following, meta) and line ~= '' then remember(name, line, tonumber(most)) end
redis.call('HDEL', P .. 'schedule:paused', name)
note_audit(audit)
return 1
