#!lua flags=allow-oom
-- Say which of two names the claim of a job has, while the key of names changes. Both names lead to the same one.
-- KEYS: prefix
-- ARGV: task; the key that the message has; its other key; how long claims of the task are kept, in ms
-- Returns the key to use
-- `same_claim:<task>:<key>`: the other key, which is used in its place. It counts while there is a claim under that, and for an hour in any
-- case, since whoever asked first has not taken its claim yet
local P, task, key, other, keep = KEYS[1], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local FRESH = 3600000 -- ms
local function claim(name) return P .. 'claim:' .. task .. ':' .. name end
local mark, other_mark = P .. 'same_claim:' .. task .. ':' .. key, P .. 'same_claim:' .. task .. ':' .. other

local function counts(where, name)
  return redis.call('EXISTS', claim(name)) == 1 or redis.call('PTTL', where) > keep - FRESH
end

if redis.call('GET', mark) == other then
  if counts(mark, other) then return other end
  redis.call('DEL', mark)
end
if redis.call('GET', other_mark) ~= key and redis.call('EXISTS', claim(key)) == 0 and redis.call('EXISTS', claim(other)) == 1 then
  redis.call('SET', mark, other, 'PX', keep)
  return other
end
redis.call('SET', other_mark, key, 'PX', keep)
return key
