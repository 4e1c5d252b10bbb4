#!lua flags=allow-oom
-- uses queues claims common
-- Write the report of a running job, renew its lease, and answer whether it may go on. All values are absolute, so a report
-- that is sent twice counts once.
-- KEYS: prefix
-- ARGV: message id, ms to keep, lease in ms, claim (`<task>:<key>`, '' when it holds none), token, id of its batch or '',
--       then fields and values
-- Returns 'on', 'cancelled' (the message or its batch is), or 'lost' (the claim has another holder; nothing was written)
local id, keep, lease, claim, token, batch = unpack(ARGV, 1, 6)
local progress = P .. 'progress:' .. id
if claim ~= '' then
  local key = P .. 'claim:' .. claim
  local holder, state, till = fields_of(key, 'token', 'state', 'until')
  if holder and holder ~= token then return 'lost' end
  if holder and state == 'running' then
    redis.call('HSET', key, 'until', integer(math.max(tonumber(till), now + lease)))
  end
end
redis.call('HSET', progress, unpack(ARGV, 7))
redis.call('HDEL', progress, 'ended')
redis.call('PEXPIRE', progress, keep)
local cancelled = redis.call('EXISTS', P .. 'cancel:' .. id, P .. 'cancel:' .. batch) > 0
return cancelled and 'cancelled' or 'on'
