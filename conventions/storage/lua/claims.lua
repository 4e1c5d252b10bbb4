-- How a claim is stored. Other scripts share this part.
-- A claim is a hash, `claim:<task>:<key>`. The claim of a job in a group is one string at first, since there may be ten thousand
-- of them a second: a string takes half the server's time and half the memory. The string has a letter for the state, then the
-- other fields in the order of `FIELDS`. The last field is the result, once the job is done. `peek` reads the string as it is.
-- `fields_of` turns it into a hash.
-- KEYS: the application's prefix, such as `{conventions}:`
-- ARGV: those of the script that uses this
-- Returns nothing by itself
local BETWEEN = '\31' -- separates the fields of a string
local FIELDS = {'token', 'start', 'fence', 'until', 'id', 'attempt', 'fingerprint', 'after', 'result'}
local STATES = {R = 'running', D = 'done'}
local WORDS = {running = 1, done = 1, released = 1, continued = 1, dead = 1} -- all states

-- Turn a claim that is a string into a hash. Returns false if the form is unknown; then the claim stays as it is.
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

-- The values of these fields of a claim. The claim is a hash from now on. If its form is unknown, the state is 'unknown' and all
-- other fields are missing. The caller must not write such a claim.
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

-- Token, state and end of the lease. The claim is not changed.
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
