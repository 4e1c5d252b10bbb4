#!lua flags=allow-oom
-- End the pause of a queue, a task or a worker.
-- KEYS: prefix
-- ARGV: what is paused, since when the pause to end holds, audit entry as JSON
-- Returns the revision of the pauses; 0, and does nothing, if there is no such pause, or another one
local pauses, now = KEYS[1] .. 'pauses', redis.call('TIME')
local found = redis.call('HGET', pauses, ARGV[1])
if not found then return 0 end
local is_read, pause = pcall(cjson.decode, found)
if not is_read or type(pause) ~= 'table' or pause.since ~= ARGV[2] then return 0 end
redis.call('HDEL', pauses, ARGV[1])
redis.call('XADD', KEYS[1] .. 'journal', '*', 'deed', ARGV[3], 'at', now[1] .. string.format('%03d', math.floor(now[2] / 1000)))
return redis.call('HINCRBY', pauses, 'revision', 1)
