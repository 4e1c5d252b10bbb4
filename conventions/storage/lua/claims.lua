-- How claims are stored, as the scripts share it.
-- A claim is a hash, `claim:<task>:<key>`. That of a job of a group, of which there may be ten thousand a second, is one string
-- at first, which takes the server half as long and half the memory: a letter for its state, then its other fields in the
-- order of `FIELDS`, and, once it is done, its result. Whoever wants more of it than `peek` tells makes a hash of it.
-- KEYS: the application's prefix, such as `{conventions}:`
-- ARGV: those of the script that uses this
-- Returns nothing by itself
local BETWEEN = '\31' -- fields of a string
local FIELDS = {'token', 'start', 'fence', 'until', 'id', 'attempt', 'fingerprint', 'after', 'result'}
local STATES = {R = 'running', D = 'done'}
local WORDS = {running = 1, done = 1, released = 1, continued = 1, dead = 1} -- that a state may be

-- Make a hash of a claim that is a string. Returns false where its form is not known here: it stays as it is.
local function unfold(key)
  local value, left = redis.pcall('GET', key), redis.call('PTTL', key)
  if type(value) ~= 'string' or not string.find(value, '^[RD]\31') then return false end
  local fields, from = {'state', STATES[string.sub(value, 1, 1)]}, 3
  for i, name in ipairs(FIELDS) do
    local stop = i < #FIELDS and string.find(value, BETWEEN, from, true) or #value + 1 -- a result may hold anything
    if from <= #value + 1 then fields[#fields + 1], fields[#fields + 2] = name, string.sub(value, from, stop - 1) end
    from = stop + 1
  end
  redis.call('DEL', key)
  redis.call('HSET', key, unpack(fields))
  if left > 0 then redis.call('PEXPIRE', key, left) end
  return true
end

-- These fields of a claim, which is a hash from now on. Of one in a form that is not known here nothing but that its state is
-- 'unknown'; such a claim must not be written.
local function fields_of(key, ...)
  local found = redis.pcall('HMGET', key, ...)
  if found.err then
    if not unfold(key) then
      found = {...}
      for i, name in ipairs(found) do found[i] = name == 'state' and 'unknown' end
      return unpack(found)
    end
    found = redis.call('HMGET', key, ...)
  end
  return unpack(found)
end

-- Token, state and end of the lease, of a claim that stays what it is.
local function peek(key)
  local value = redis.pcall('GET', key)
  if type(value) == 'table' then
    local found = redis.pcall('HMGET', key, 'token', 'state', 'until')
    if found.err then return false, 'unknown', false end
    return unpack(found)
  end
  if not value then return false, false, false end
  local letter, token, till = string.match(value, '^(.)\31([^\31]*)\31[^\31]*\31[^\31]*\31([^\31]*)')
  return token, STATES[letter], till
end
