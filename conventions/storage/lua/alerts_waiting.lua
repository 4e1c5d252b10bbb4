#!lua flags=allow-oom
-- Read what is to be told, if some of it is due: all that waits, so that a receiver is told in order. Even when memory is full: that is one of
-- the alerts.
-- KEYS: prefix
-- ARGV: seconds since the epoch
-- Returns nothing if nothing is due then; else for each that waits: when it is due, and it as JSON
local call, due, messages = redis.call, KEYS[1] .. 'alerts:due', KEYS[1] .. 'alerts:messages'
if #call('ZRANGEBYSCORE', due, '-inf', ARGV[1], 'LIMIT', 0, 1) == 0 then return {} end
local waiting, found = call('ZRANGE', due, 0, -1, 'WITHSCORES'), {}
for i = 1, #waiting, 2 do
  local message = call('HGET', messages, waiting[i])
  if message then
    table.insert(found, {waiting[i + 1], message})
  else
    call('ZREM', due, waiting[i]) -- somebody deleted it
  end
end
return found
