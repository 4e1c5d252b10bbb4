#!lua flags=allow-oom
-- Keep the episodes of the evaluator that leads, and what is to be told, in one step. Even when memory is full: that is one of the alerts.
-- KEYS: prefix
-- ARGV: who evaluates; ms for which it leads from now on; episodes as JSON; how many are kept of those that are over; how many of these there
--       are, and each as JSON; then what is to be told, each as JSON with its id before it
-- Returns 1; or 0 if another one leads: then nothing is changed
local call, P = redis.call, KEYS[1]
local lead = P .. 'alerts:lead'
local leader = call('GET', lead)
if leader and leader ~= ARGV[1] then return 0 end
call('SET', lead, ARGV[1], 'PX', ARGV[2])
call('SET', P .. 'alerts', ARGV[3])
local over = tonumber(ARGV[5])
for i = 6, 5 + over do call('LPUSH', P .. 'alerts:over', ARGV[i]) end
if over > 0 then call('LTRIM', P .. 'alerts:over', 0, tonumber(ARGV[4]) - 1) end
for i = 6 + over, #ARGV, 2 do
  if call('HSETNX', P .. 'alerts:messages', ARGV[i], ARGV[i + 1]) == 1 then call('ZADD', P .. 'alerts:due', 0, ARGV[i]) end
end
return 1
