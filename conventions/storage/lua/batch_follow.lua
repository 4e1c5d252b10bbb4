#!lua flags=allow-oom
-- uses queues claims common batch
-- Ask which message a batch needs. The caller sends it. If it is not sent, another caller gets it a minute later.
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
