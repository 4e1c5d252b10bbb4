#!lua flags=allow-oom
-- uses queues claims common batch
-- Record messages of batches as lost that are gone without an outcome. The batch goes on without them.
-- KEYS: prefix
-- ARGV: for each: batch id, role ('splitter' | 'chunk'), index, message id, how its batch counts it (see `join`), event as JSON
-- Returns how many were lost
local lost = 0
for i = 1, #ARGV, 6 do
  local id, role, index, message_id, member, event = unpack(ARGV, i, i + 5)
  local batch = P .. 'batch:' .. id
  local state = redis.call('HGET', batch, 'state')
  local open = role == 'splitter' and state == 'splitting'
    or role == 'chunk' and state == 'running' and redis.call('HEXISTS', batch .. ':outcomes', index) == 0
  if open and redis.call('EXISTS', message_key(message_id)) == 0 then
    redis.call('XADD', P .. 'journal', '*', 'event', event, 'fence', '0', 'at', integer(now))
    join(member, '')
    lost = lost + 1
  end
end
return lost
