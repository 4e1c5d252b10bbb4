#!lua flags=allow-oom
-- Whether the jobs of a group have succeeded, as the calls of `succeed` before this one have recorded it or not.
-- KEYS: prefix
-- ARGV: for each job its claim and its token
-- Returns for each job 1 or 0
local answers = {}
for i = 1, #ARGV, 2 do
  local found = redis.call('HMGET', KEYS[1] .. 'claim:' .. ARGV[i], 'token', 'state')
  answers[#answers + 1] = (found[1] == ARGV[i + 1] and found[2] == 'done') and 1 or 0
end
return answers
