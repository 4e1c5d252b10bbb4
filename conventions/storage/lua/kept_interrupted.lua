#!lua flags=allow-oom
-- uses queues claims common interrupted
-- Read the starts without an outcome of messages that end without another start.
-- KEYS: prefix
-- ARGV: for each: claim (`<task>:<key>`), message id, token of the delivery that ends: its own start has this end
-- Returns for each what its claim keeps, see `keep_interrupted`, or ''
local answers = {}
for i = 1, #ARGV, 3 do
  local key = P .. 'claim:' .. ARGV[i]
  local holder, state, till = peek(key)
  if state == 'running' and holder ~= ARGV[i + 2] and tonumber(till or now) < now then
    local id, starts, after = fields_of(key, 'id', 'starts', 'after')
    if id == ARGV[i + 1] and starts_of(ARGV[i], starts, after) > 0 then keep_lapsed(key, tonumber(till)) end
  end
  local kept = WORDS[state] and redis.pcall('HGET', key, 'interrupted')
  answers[#answers + 1] = type(kept) == 'string' and kept or ''
end
return answers
