#!lua flags=allow-oom
-- uses queues claims common
-- Record jobs as lost: their messages are gone, and nobody will settle them. The claim stays with its holder, who may still
-- record an outcome.
-- KEYS: prefix
-- ARGV: for each: claim, token, message id, event as JSON
-- Returns how many were lost
local lost = 0
for i = 1, #ARGV, 4 do
  local claim, token, id, event = unpack(ARGV, i, i + 3)
  local key = P .. 'claim:' .. claim
  local holder, state, till = peek(key)
  if (holder or '') == token and state == 'running' and tonumber(till or now) < now and redis.call('EXISTS', message_key(id)) == 0 then
    fields_of(key, 'state') -- turns the claim into a hash
    redis.call('HSET', key, 'lost', '1')
    redis.call('XADD', P .. 'journal', '*', 'event', event, 'fence', '0', 'at', integer(now))
    lost = lost + 1
  end
end
return lost
