#!lua flags=allow-oom
-- uses queues claims common
-- Read all of a claim that a look at its job shows.
-- KEYS: prefix
-- ARGV: claim
-- Returns nothing if there is no claim; else {state, message id, generation, attempt, fence, ms since the epoch until which it is held,
-- 1 if that is over, result as JSON, or '' if it is not known}
local key = P .. 'claim:' .. ARGV[1]
local state, id, generation, attempt, fence, till, result, starts, after =
  fields_of(key, 'state', 'id', 'generation', 'attempt', 'fence', 'until', 'result', 'starts', 'after')
if not state then return end
-- In a group only the first job has begun, and each other one when the one before it has ended.
if state == 'running' and starts_of(ARGV[1], starts, after) == 0 then state = 'granted' end
return {state, id or '', generation or '0', attempt or '0', fence or '0', till or '0', tonumber(till or 0) < now and 1 or 0,
  result or 'null'} -- a result that is null is not stored
