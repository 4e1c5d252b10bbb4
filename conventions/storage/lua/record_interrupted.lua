#!lua flags=allow-oom
-- uses queues claims common interrupted
-- Write starts without an outcome to the journal, each once: the claim keeps them until then.
-- KEYS: prefix
-- ARGV: claim (`<task>:<key>`), then for each: what the claim keeps of it, event as JSON, ms since the epoch when it ended
-- Returns how many were written
local key, written = P .. 'claim:' .. ARGV[1], 0
local state, kept, holder, till = fields_of(key, 'state', 'interrupted', 'token', 'until')
if not kept or not WORDS[state] then return 0 end
local of_holder = state == 'running' and tonumber(till or now) < now and string.sub(cjson.encode({holder}), 1, -2) .. ','
for i = 2, #ARGV, 3 do
  local entry, event, at = unpack(ARGV, i, i + 2)
  local from, to = string.find(kept, entry .. ENTRY_ENDS, 1, true)
  if from then
    kept = string.sub(kept, 1, from - 1) .. string.sub(kept, to + 1)
    redis.call('XADD', P .. 'journal', '*', 'event', event, 'fence', '0', 'at', at)
    if of_holder and string.sub(entry, 1, #of_holder) == of_holder then redis.call('HSET', key, 'told', holder) end
    written = written + 1
  end
end
if kept == '' then redis.call('HDEL', key, 'interrupted') else redis.call('HSET', key, 'interrupted', kept) end
return written
