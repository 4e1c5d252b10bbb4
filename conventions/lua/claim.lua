#!lua flags=allow-oom
-- Take claims, one for each message.
-- KEYS: for each message, its claim (hash) and its cancel mark (string)
-- ARGV: lease in ms, horizon in ms, then for each message: token, message id, fingerprint
-- Returns for each message one of
--   {'granted', fence}      the caller holds the claim
--   {'done', result, id}    finished before, by the message `id`; `result` is JSON
--   {'busy', ms}            held or backing off; nothing to do for so many ms
--   {'conflict', id}        the key was used by the message `id` with another payload
--   {'cancelled'}           the message must not run
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease, horizon = tonumber(ARGV[1]), tonumber(ARGV[2])

local function take(key, cancel, token, id, fingerprint)
  if redis.call('EXISTS', cancel) == 1 then return {'cancelled'} end
  local claim = redis.call('HMGET', key, 'state', 'token', 'fence', 'until', 'id', 'fingerprint', 'result')
  local state, holder, fence, till, owner = claim[1], claim[2], claim[3], tonumber(claim[4] or 0), claim[5]
  if state and owner ~= id and claim[6] ~= fingerprint and state ~= 'dead' then return {'conflict', owner} end
  if state == 'done' then return {'done', claim[7] or 'null', owner} end
  if state == 'running' and holder ~= token and till > now then return {'busy', till - now} end
  if state == 'released' and owner ~= id and till > now then return {'busy', till - now} end
  if not (state == 'running' and holder == token) then
    -- from the clock, so that a fence never starts again at 1 after a flush
    fence = math.max((tonumber(fence or 0)) + 1, time[1] * 1000000 + time[2])
  end
  fence = string.format('%.0f', fence)
  redis.call('HSET', key, 'state', 'running', 'token', token, 'fence', fence, 'until', now + lease,
    'id', id, 'fingerprint', fingerprint)
  redis.call('PEXPIRE', key, horizon)
  return {'granted', fence}
end

local answers = {}
for i = 1, #KEYS / 2 do
  local base = 2 + (i - 1) * 3
  answers[i] = take(KEYS[2 * i - 1], KEYS[2 * i], ARGV[base + 1], ARGV[base + 2], ARGV[base + 3])
end
return answers
