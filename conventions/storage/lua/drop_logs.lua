#!lua flags=allow-oom
-- Forget the lines of runs, unless further ones have come. Even when memory is full: it makes room.
-- KEYS: prefix
-- ARGV: for each run: id of the message, name of the run, its version as it was read ('' for one without lines)
-- Returns how many are gone
local call, P, gone = redis.call, KEYS[1], 0
for i = 1, #ARGV, 3 do
  local key, member = P .. 'log:' .. ARGV[i] .. ':' .. ARGV[i + 1], ARGV[i + 1] .. ':' .. ARGV[i]
  if (call('HGET', key, 'version') or '') == ARGV[i + 2] then
    call('DEL', key)
    call('SREM', P .. 'logs_of:' .. ARGV[i], ARGV[i + 1])
    call('ZREM', P .. 'logs', member)
    call('DECRBY', P .. 'logs:bytes', call('HGET', P .. 'logs:sizes', member) or 0)
    call('HDEL', P .. 'logs:sizes', member)
    gone = gone + 1
  end
end
return gone
