#!lua flags=allow-oom
-- uses queues claims common
-- Give a place to messages that are in none of the three sets.
-- KEYS: prefix
-- ARGV: for each message: tag, ms until it is due
-- Returns how many had none
local found = 0
for i = 1, #ARGV, 2 do
  local score, queue = sent(ARGV[i])
  local wait = tonumber(ARGV[i + 1])
  if find_place(ARGV[i], queue, score, VISIBILITY, wait > 0 and integer(now + wait)) then found = found + 1 end
end
return found
