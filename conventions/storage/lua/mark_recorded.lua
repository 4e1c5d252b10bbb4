#!lua flags=allow-oom
-- Note that SQL has recorded one more part of the journal, if this server has the count before it.
-- KEYS: the mark (`<number> <ms> <run>`: parts that SQL has, when that was, and the run of the server in which it was compared)
-- ARGV: the number of the part; the run of the server where it was compared now, so that the mark is whatever it was before, or ''
-- Returns 1; or 0 if the mark is not the count before: the server is an older copy, or a recorder died before this step
local number, run = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) %d+ (.*)$')
if ARGV[2] ~= '' then
  run = ARGV[2]
elseif not number or (tonumber(number) ~= ARGV[1] - 1 and number ~= ARGV[1]) then
  return 0
end
local clock = redis.call('TIME')
local now = string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000))
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. now .. ' ' .. run)
return 1
