#!lua flags=allow-oom
-- uses queues claims common
-- Find running claims whose lease ended long ago and whose message is gone: nobody will settle them.
-- KEYS: prefix
-- ARGV: the least ms since the end of the lease; then claims (`<task>:<key>`)
-- Returns for each such claim {claim, token, message id, generation, attempt}
local found = {}
for i = 2, #ARGV do
  local key = P .. 'claim:' .. ARGV[i]
  local kind = redis.call('TYPE', key).ok
  local runs = kind == 'hash' and redis.call('HGET', key, 'state') == 'running' and redis.call('HEXISTS', key, 'lost') == 0
  if kind == 'string' then runs = redis.call('GETRANGE', key, 0, 0) == 'R' end
  if runs then
    local token, _, till = peek(key)
    if tonumber(till or now) < now - ARGV[1] then
      local id, generation, attempt = fields_of(key, 'id', 'generation', 'attempt')
      if id and redis.call('EXISTS', message_key(id)) == 0 then
        found[#found + 1] = {ARGV[i], token or '', id, generation or '0', attempt or '1'}
      end
    end
  end
end
return found
