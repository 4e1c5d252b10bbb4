#!lua flags=allow-oom
-- uses queues claims common
-- Mark jobs as done that this server, restored from a copy, does not know as done. A claim that is held now stays with its
-- holder. A claim in an unknown form stays as it is.
-- KEYS: prefix
-- ARGV: for each: claim, message id, ms to keep it
-- Returns how many were marked
local found = 0
for i = 1, #ARGV, 3 do
  local key = P .. 'claim:' .. ARGV[i]
  local state, fence, till = fields_of(key, 'state', 'fence', 'until')
  if state and not WORDS[state] then
    note_unknown('claim:' .. ARGV[i])
  elseif state ~= 'done' and not (state == 'running' and tonumber(till or 0) > now) then
    redis.call('HSET', key, 'state', 'done', 'id', ARGV[i + 1], 'fingerprint', '', 'result', '', 'until', integer(now), 'starts', 0,
      'fence', integer(math.max(tonumber(fence or 0) + 1, micros)), 'token', '', 'followed', '1', 'after', '')
    redis.call('PEXPIRE', key, ARGV[i + 2])
    wake_parked(ARGV[i])
    found = found + 1
  end
end
return found
