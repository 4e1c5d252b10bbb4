#!lua flags=allow-oom
-- uses queues claims common
-- Return the first messages in one place of a queue, as many as one answer should hold.
-- KEYS: prefix
-- ARGV: queue, place ('queue' | 'delayed' | 'inflight'), how many to leave out, how many at the most, bytes at the most
-- Returns for each message {tag, score, payload, generation, attempt that comes next or '0', and of one in flight 'running', 'ended' if only
-- its worker must acknowledge it, or '': nobody has begun it}
local queue, place, first, most, bytes = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local key = P .. place .. ':' .. queue
local kind = redis.call('TYPE', key).ok
if place == 'queue' and kind ~= 'zset' and kind ~= 'none' then adopt(queue) end
local found = {}
local members = redis.call('ZRANGE', key, first, first + most - 1, 'WITHSCORES')
for i = 1, #members, 2 do
  local tag = members[i]
  local _, _, _, _, generation, payload = sent(tag)
  payload = payload or tag -- a tag of another program is its own payload, see `reserve`
  bytes = bytes - #payload
  if bytes < 0 and #found > 0 then break end
  local spot = ''
  if place == 'inflight' then
    spot = place_of(tag) or 'ended'
    if spot == 'waiting' then spot = '' end
  end
  found[#found + 1] = {tag, members[i + 1], payload, generation or '0', history(tag, 'attempt') or '0', spot}
end
return found
