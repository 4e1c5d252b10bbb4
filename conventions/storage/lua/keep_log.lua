#!lua
-- Keep lines of one run of an attempt. The same call twice leaves the same.
-- KEYS: prefix
-- ARGV: id of the message, name of the run, '1' if the caller has stored lines of it before, '1' if the run has ended, ms after
--       which a run that says nothing is taken for ended, ms that the lines live, most bytes of all runs together; how many numbers
--       of lines to drop, and these; then each new line as its number and its text
-- Returns 1; 0 if there are too many bytes of others; -1 if what was stored before is not there any more
local call, P = redis.call, KEYS[1]
local key, member = P .. 'log:' .. ARGV[1] .. ':' .. ARGV[2], ARGV[2] .. ':' .. ARGV[1]
local known = tonumber(call('HGET', P .. 'logs:sizes', member) or -1)
if ARGV[3] == '1' and (known < 0 or call('EXISTS', key) == 0) then return -1 end

local size, at = math.max(known, 0), 9 + tonumber(ARGV[8])
if ARGV[3] ~= '1' and known >= 0 then call('DEL', key) size = 0 end -- all of it comes again
local more = 0
for i = at, #ARGV, 2 do more = more + #ARGV[i + 1] end
if known < 0 and tonumber(call('GET', P .. 'logs:bytes') or 0) + more > tonumber(ARGV[7]) then return 0 end
for i = 9, at - 1 do
  size = size - call('HSTRLEN', key, ARGV[i])
  call('HDEL', key, ARGV[i])
end
for i = at, #ARGV, 2 do
  size = size - call('HSTRLEN', key, ARGV[i]) + #ARGV[i + 1]
  call('HSET', key, ARGV[i], ARGV[i + 1])
end
if ARGV[4] == '1' then call('HSET', key, 'ended', '1') end
call('HSET', key, 'version', call('INCR', P .. 'logs:changes')) -- never the same again, also where the lines were deleted meanwhile
call('PEXPIRE', key, ARGV[6])
call('SADD', P .. 'logs_of:' .. ARGV[1], ARGV[2])
call('PEXPIRE', P .. 'logs_of:' .. ARGV[1], ARGV[6])
call('HSET', P .. 'logs:sizes', member, size)
call('INCRBY', P .. 'logs:bytes', size - math.max(known, 0))
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
call('ZADD', P .. 'logs', ARGV[4] == '1' and now or now + tonumber(ARGV[5]), member)
return 1
