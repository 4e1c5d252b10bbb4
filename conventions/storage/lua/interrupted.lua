-- What the scripts share that find a start without an outcome: its process or its worker ended. The claim keeps it until the next
-- start, or whoever ends the message, has written it to the journal (`record_interrupted`).
-- KEYS: the prefix
-- ARGV: those of the script that uses this
-- Returns nothing by itself
local ENTRY_ENDS = '\30' -- is in no JSON text
local MOST_INTERRUPTED = 10 -- starts that a claim keeps, the latest: more are of messages that never came again

-- Keep the present start of a claim, which is a hash. Not one of which the journal knows already, see `told`.
-- `at`: ms since the epoch, when it ended at the latest; `why`: what is known of that. Returns all that the claim keeps.
local function keep_interrupted(key, at, why)
  local token, told, fence, id, generation, attempt, kept =
    fields_of(key, 'token', 'told', 'fence', 'id', 'generation', 'attempt', 'interrupted')
  kept = kept or ''
  if not token or told == token then return kept end
  local began = math.floor(tonumber(fence or 0) / 1000)
  local start = {token, id or '', integer(tonumber(generation or 0)), integer(tonumber(attempt or 1))}
  local is_same = string.sub(cjson.encode(start), 1, -2) .. ',' -- a pool may begin one delivery twice: that is one event
  if string.find(kept, is_same, 1, true) then return kept end
  start[5], start[6], start[7] = integer(began), integer(math.max(at, began)), why
  if select(2, string.gsub(kept, ENTRY_ENDS, '')) >= MOST_INTERRUPTED then kept = string.sub(kept, string.find(kept, ENTRY_ENDS, 1, true) + 1) end
  kept = kept .. cjson.encode(start) .. ENTRY_ENDS
  redis.call('HSET', key, 'interrupted', kept)
  return kept
end

-- The same of a claim whose holder gave no sign of life for a lease; nothing is known of its end, whatever is of an earlier one.
local function keep_lapsed(key, till)
  redis.call('HDEL', key, 'why')
  return keep_interrupted(key, math.min(till, now), '')
end
