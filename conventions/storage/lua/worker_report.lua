#!lua flags=allow-oom
-- Keep what a worker says of itself, with the time by the server's clock.
-- KEYS: prefix
-- ARGV: name of the worker, what it says as JSON, ms for which all reports are kept; '1' to forget those that have said nothing for so
--       long: that reads all reports, so nobody asks for it each time
-- Returns nothing
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local key = KEYS[1] .. 'workers'
redis.call('HSET', key, ARGV[1], string.format('%.0f', now) .. ' ' .. ARGV[2])
redis.call('PEXPIRE', key, ARGV[3])
if ARGV[4] ~= '1' then return end
local kept = redis.call('HGETALL', key)
for i = 1, #kept, 2 do
  local at = tonumber(string.match(kept[i + 1], '^%d+'))
  if not at or now - at > tonumber(ARGV[3]) then redis.call('HDEL', key, kept[i]) end
end
