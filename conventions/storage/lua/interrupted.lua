-- What the scripts share that find a start without an outcome: its process or its worker ended. The claim keeps it until the next
-- start, or whoever ends the message, has written it to the journal (`record_interrupted`).
-- KEYS: the prefix
-- ARGV: those of the script that uses this
-- Returns nothing by itself
local ENTRY_ENDS = '\30' -- is in no JSON text
local MOST_INTERRUPTED = 10 -- starts that a claim keeps: the limit of starts is below

-- Keep the present start of a claim, which is a hash. Not one of which the journal knows already, see `told`.
-- `at`: ms since the epoch, when it ended at the latest; `why`: what is known of that. Returns all that the claim keeps.
local function keep_interrupted(key, at, why)
  local token, told, fence, id, generation, attempt, kept =
    fields_of(key, 'token', 'told', 'fence', 'id', 'generation', 'attempt', 'interrupted')
  kept = kept or ''
  if not token or told == token then return kept end
  local began = math.floor(tonumber(fence or 0) / 1000)
  local entry = cjson.encode({token, id or '', integer(tonumber(generation or 0)), integer(tonumber(attempt or 1)), integer(began),
    integer(math.max(at, began)), why}) .. ENTRY_ENDS
  if string.find(kept, entry, 1, true) or select(2, string.gsub(kept, ENTRY_ENDS, '')) >= MOST_INTERRUPTED then return kept end
  redis.call('HSET', key, 'interrupted', kept .. entry)
  return kept .. entry
end
