#!lua flags=allow-oom
-- uses queues claims common schedule schedule_history
-- Move a schedule's cursor to a slot, never back, and remember what became of slots.
-- KEYS: prefix
-- ARGV: schedule, slot and next slot in seconds since the epoch (the latter '' when there is none), RedBeat's meta as
--       JSON, the message that was sent as JSON or '', lines to keep; then lines of the history as JSON, the oldest first
-- Returns 1 when the cursor moved, 0 when it was there already or further
local name, slot, following, meta, last, most = unpack(ARGV, 1, 6)
if not move(name, slot, following, meta) then return 0 end
if last ~= '' then redis.call('HSET', entry_of(name), 'last', last) end
for i = 7, #ARGV do remember(name, ARGV[i], tonumber(most)) end
return 1
