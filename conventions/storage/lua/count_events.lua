#!lua flags=allow-oom
-- Add what was counted of a part of the journal, if nobody has counted it before. Even when memory is full: recording waits for it.
-- KEYS: prefix
-- ARGV: id of the entry before the part, id of its last entry; how many runs of counts, and for each: minute since the epoch,
--       task, queue, how many counts, and these, each as name and number; how many causes, and for each: fingerprint, task, queue,
--       error, message, ms of its first and of its last failure, id of a message, attempts that were tried again, attempts that were
--       the last, how many numbers by worker, release and minute, and these; how many messages that failed or ended, and for each: id, and
--       fingerprint, '\31' and queue if it is tried again, else ''; for each release: its name, and ms of its first attempt
-- Returns the id of the last entry that is counted: that of the part, or another one if the part was not added
local call, P = redis.call, KEYS[1]
local MINUTES, LONG, SHORT = 7800000, 691200000, 7200000 -- ms that counts by minute live; causes with, and without, messages that are tried again
local MOST_SERIES, MOST_ERRORS, MOST_CAUSES, MOST_FIELDS, MOST_RELEASES = 5000, 5000, 1000, 300, 200
local at = 0
local function take(count)
  at = at + count
  return unpack(ARGV, at - count + 1, at)
end

local before, last = take(2)
local known = call('GET', P .. 'counts:last') or '0-0'
if known ~= before then
  -- Where the journal was made anew by a clock that was set back, its ids are lower. The caller has looked, and begins at its start.
  if before ~= '0-0' then return known end
  local info = call('XINFO', 'STREAM', P .. 'journal')
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      local new, old = tonumber(string.match(info[i + 1], '^%d+')), tonumber(string.match(known, '^%d+'))
      if new >= old then return known end
    end
  end
end
call('SET', P .. 'counts:last', last) -- first: whatever is wrong with the sums must not hold up the recorder

-- The number of a series. All that are too many are one: number 0, of no task and no queue.
local function series_of(task, queue)
  local name = task .. '\31' .. queue
  local number = call('HGET', P .. 'counts:series', name)
  if number then return number end
  local count = call('HLEN', P .. 'counts:series')
  if count >= MOST_SERIES then return '0' end
  call('HSET', P .. 'counts:series', name, count + 1)
  return tostring(count + 1)
end

for _ = 1, tonumber(take(1)) do
  local minute, task, queue, fields = take(4)
  local number = series_of(task, queue)
  local key = P .. 'counts:minute:' .. minute
  for _ = 1, tonumber(fields) do
    local name, count = take(2)
    local field = number .. ':' .. name
    if string.find(name, 'failed by ', 1, true) == 1 and call('SISMEMBER', P .. 'counts:errors', field) == 0 then
      if call('SCARD', P .. 'counts:errors') < MOST_ERRORS then
        call('SADD', P .. 'counts:errors', field)
      else
        field = number .. ':failed by others' -- whoever writes a task may name any class
      end
    end
    call('HINCRBY', key, field, count)
    call('HINCRBY', P .. 'counts:total', field, count)
  end
  call('PEXPIRE', key, MINUTES)
end

local function keep(fingerprint)
  local retrying = call('HEXISTS', P .. 'retrying:causes', fingerprint) == 1
  call('PEXPIRE', P .. 'cause:' .. fingerprint, retrying and LONG or SHORT)
end

local function add_cause(fingerprint, task, queue, error, message, first, last, example, retried, dead, fields)
  local key = P .. 'cause:' .. fingerprint
  if call('HSETNX', key, 'first', first) == 1 then call('HSET', key, 'task', task, 'error', error) end
  call('HSET', key, 'message', message, 'last', last, 'example', example, 'queue', queue)
  call('HINCRBY', key, 'retried', retried)
  call('HINCRBY', key, 'dead', dead)
  for _ = 1, tonumber(fields) do
    local name, count = take(2)
    local minute, kind = string.match(name, '^minute (%d+) (%a+)$')
    if minute then
      local failed = P .. 'counts:failed:' .. minute
      if call('HLEN', failed) < 2 * MOST_CAUSES then call('HINCRBY', failed, fingerprint .. ' ' .. kind, count) end
      call('PEXPIRE', failed, MINUTES)
    elseif call('HLEN', key) < MOST_FIELDS or call('HEXISTS', key, name) == 1 then
      call('HINCRBY', key, name, count)
    end
  end
  call('ZADD', P .. 'causes', last, fingerprint)
  call('PEXPIRE', P .. 'causes', LONG)
  keep(fingerprint)
end

for _ = 1, tonumber(take(1)) do add_cause(take(11)) end

local function add_to(key, field, by)
  if call('HINCRBY', key, field, by) <= 0 then call('HDEL', key, field) end
end

-- One message more, or fewer, is tried again after this cause, in this queue.
local function change_retrying(value, by)
  local fingerprint, queue = string.match(value, '^([^\31]*)\31(.*)$')
  if not fingerprint then return end -- another program wrote it
  add_to(P .. 'retrying:queues', queue, by)
  add_to(P .. 'retrying:causes', fingerprint, by)
  keep(fingerprint)
end

for _ = 1, tonumber(take(1)) do
  local id, value = take(2)
  local was = call('HGET', P .. 'retrying', id) or ''
  if was ~= value then
    if value == '' then call('HDEL', P .. 'retrying', id) else call('HSET', P .. 'retrying', id, value) end
    if was ~= '' then change_retrying(was, -1) end
    if value ~= '' then change_retrying(value, 1) end
  end
end

while at < #ARGV do
  local release, first = take(2)
  if call('HSETNX', P .. 'releases', release, first) == 1 and call('HLEN', P .. 'releases') > MOST_RELEASES then
    local all, oldest = call('HGETALL', P .. 'releases'), 1
    for i = 1, #all, 2 do
      if (tonumber(all[i + 1]) or 0) < (tonumber(all[oldest + 1]) or 0) then oldest = i end
    end
    call('HDEL', P .. 'releases', all[oldest])
  end
end

-- Causes that are too many: those that failed longest ago go, but none whose messages are tried again.
local over = call('ZCARD', P .. 'causes') - MOST_CAUSES
if over > 0 then
  for _, fingerprint in ipairs(call('ZRANGE', P .. 'causes', 0, over + 200)) do
    if over > 0 and call('HEXISTS', P .. 'retrying:causes', fingerprint) == 0 then
      call('DEL', P .. 'cause:' .. fingerprint)
      call('ZREM', P .. 'causes', fingerprint)
      over = over - 1
    end
  end
end
return last
