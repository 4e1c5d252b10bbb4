#!lua flags=allow-oom
-- uses queues claims common
-- Read all of a claim that a look at its job shows. The claim stays as it is stored.
-- KEYS: prefix
-- ARGV: claim
-- Returns nothing if there is no claim; else {state, message id, generation, attempt, fence, ms since the epoch until which it is held,
-- 1 if that is over, result as JSON, or '' if it is not known, token, what it keeps of starts without an outcome, see `keep_interrupted`}
local key = P .. 'claim:' .. ARGV[1]
local found = {}
local value = redis.pcall('GET', key)
if type(value) == 'string' then -- see `unfold`, which would change it
  if not string.find(value, '^[RD]\31') then return {'unknown', '', '0', '0', '0', '0', 0, '', '', ''} end
  found.state = STATES[string.sub(value, 1, 1)]
  local from = 3
  for i, name in ipairs(FIELDS) do
    local stop = i < #FIELDS and string.find(value, BETWEEN, from, true) or #value + 1
    if from <= #value + 1 then found[name] = string.sub(value, from, stop - 1) end
    from = stop + 1
  end
else
  local fields = redis.pcall('HGETALL', key)
  if fields.err then return {'unknown', '', '0', '0', '0', '0', 0, '', '', ''} end
  for i = 1, #fields, 2 do found[fields[i]] = fields[i + 1] end
end
if not found.state then return end
-- In a group only the first job has begun, and each other one when the one before it has ended.
if found.state == 'running' and starts_of(ARGV[1], found.starts, found.after) == 0 then found.state = 'granted' end
return {found.state, found.id or '', found.generation or '0', found.attempt or '0', found.fence or '0', found['until'] or '0',
  (tonumber(found['until']) or 0) < now and 1 or 0, found.result or 'null', -- a result that is null is not stored
  found.token or '', found.interrupted or ''}
