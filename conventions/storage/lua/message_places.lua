#!lua flags=allow-oom
-- uses queues claims common
-- Where messages are.
-- KEYS: prefix
-- ARGV: their tags
-- Returns for each 'waiting', 'running', or nothing when it is not there, since it has ended
local answers = {}
for i, tag in ipairs(ARGV) do answers[i] = place_of(tag) end
return answers
