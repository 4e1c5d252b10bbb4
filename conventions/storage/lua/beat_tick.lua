#!lua flags=allow-oom
-- Note that a beat has looked at the schedule. Forget beats that have been silent for long.
-- KEYS: the beats (hash: name of a beat to `<1 when it leads>:<ms of its last look>:<ms of its first>`)
-- ARGV: name of the beat, '1' when it leads, ms after which a silent one is forgotten, ms to keep all this
-- Returns how many beats are known
local clock = redis.call('TIME')
local now = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
local first = string.match(redis.call('HGET', KEYS[1], ARGV[1]) or '', ':(%d+)$') or now
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ':' .. now .. ':' .. first)
local beats = redis.call('HGETALL', KEYS[1])
for i = 1, #beats, 2 do
  local at = string.match(beats[i + 1], '^[01]:(%d+):%d+$') -- a later release may write another form, which stays
  if at and now - at > tonumber(ARGV[3]) then redis.call('HDEL', KEYS[1], beats[i]) end
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return redis.call('HLEN', KEYS[1])
