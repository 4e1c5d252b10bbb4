#!lua flags=allow-oom
-- A run by hand was sent, or it was not: let the next one begin, after a moment or at once. Another one may have its place by now.
-- KEYS: prefix
-- ARGV: schedule, message id, ms until the next one may begin, or 0
-- Returns 1; or 0 if it has its place no more: then nothing is changed
local claim = KEYS[1] .. 'schedule:by_hand:' .. ARGV[1]
local id = string.match(redis.call('GET', claim) or '', '^([^\31]*)\31')
if id ~= ARGV[2] then return 0 end
if ARGV[3] == '0' then redis.call('DEL', claim) else redis.call('PEXPIRE', claim, ARGV[3]) end
return 1
