#!lua flags=allow-oom
-- uses queues claims common batch
-- Ask what a batch still has to send. Who asks sends it; another asks for it in a minute if it is not done by then.
-- KEYS: prefix
-- ARGV: id of the batch
-- Returns {'finish' | 'recovered' | '', number}
local kind, number = what_follows(ARGV[1])
if kind == '' then
  redis.call('ZREM', P .. 'closing', ARGV[1])
else
  redis.call('ZADD', P .. 'closing', integer(now + SEND_AGAIN), ARGV[1])
end
return {kind, tonumber(number)}
