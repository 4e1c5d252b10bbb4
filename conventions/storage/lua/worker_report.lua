#!lua flags=allow-oom
-- Keep what a worker says of itself, with the time by the server's clock, and forget those that have said nothing for long.
-- KEYS: prefix
-- ARGV: name of the worker, what it says as JSON, ms after which a silent one is forgotten
-- Returns how many are kept
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local key = KEYS[1] .. 'workers'
redis.call('HSET', key, ARGV[1], string.format('%.0f', now) .. ' ' .. ARGV[2])
redis.call('PEXPIRE', key, ARGV[3])
local kept = redis.call('HGETALL', key)
for i = 1, #kept, 2 do
  local at = tonumber(string.match(kept[i + 1], '^%d+'))
  if not at or now - at > tonumber(ARGV[3]) then redis.call('HDEL', key, kept[i]) end
end
return redis.call('HLEN', key)
