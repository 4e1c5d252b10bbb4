#!lua flags=allow-oom
-- uses queues claims
-- Take the claims of a group if none of them exists, which is nearly always so: all or none. It does what `claim` would do,
-- with fewer arguments, since the server makes a string of each argument.
-- KEYS: prefix
-- ARGV: lease in ms; token, task and key of the job before the first one in the group, or '' three times; the start, which
--       all have in common; then for each sequence of messages of one task: the task, which has no colon, its horizon in ms, ms
--       since the epoch when the first of them was sent, their number, and for each message: key, message id (also its tag),
--       fingerprint, receipt (also its token). No argument contains `BETWEEN`, no key occurs twice, and no message is dead: a
--       dead one runs alone, see `settle`
-- Returns the fence of all of them. 0 if a claim exists, or a message is cancelled, too old, or held by another worker; then
-- nothing was changed
local call = redis.call
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local last_token, last_task, last_key, start = ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local names, count = {}, 0 -- for each message: the key of its claim, then the key of its cancel mark
local tags, tokens, messages = {}, {}, {}
local i = 6
while i <= #ARGV do
  local claim, horizon, sent_at, jobs = P .. 'claim:' .. ARGV[i] .. ':', ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  if now - tonumber(sent_at) > tonumber(horizon) then return 0 end
  i = i + 4
  for j = i, i + 4 * jobs - 1, 4 do
    local id = ARGV[j + 1]
    tags[#tags + 1], tokens[#tokens + 1], messages[#messages + 1] = id, ARGV[j + 3], P .. 'message:' .. id
    names[count + 1], names[count + 2] = claim .. ARGV[j], P .. 'cancel:' .. id
    count = count + 2
  end
  i = i + 4 * jobs
end
for n, receipt in ipairs(call('HMGET', P .. 'receipts', unpack(tags))) do
  if receipt ~= tokens[n] then return 0 end
end
if call('EXISTS', unpack(messages)) < #messages or call('EXISTS', unpack(names)) > 0 then return 0 end

local fence = integer(clock[1] * 1000000 + clock[2])
local lapses = integer(now + ARGV[1])
local common = BETWEEN .. start .. BETWEEN .. fence .. BETWEEN .. lapses .. BETWEEN
i, count = 6, -1
while i <= #ARGV do
  local task, horizon, jobs = ARGV[i], ARGV[i + 1], ARGV[i + 3]
  i = i + 4
  for j = i, i + 4 * jobs - 1, 4 do
    local key, id, fingerprint, token = ARGV[j], ARGV[j + 1], ARGV[j + 2], ARGV[j + 3]
    count = count + 2
    if last_token == '' then -- it starts now
      call('HSET', names[count], 'state', 'running', 'token', token, 'start', start, 'fence', fence, 'until', lapses, 'id', id,
        'attempt', 1, 'fingerprint', fingerprint, 'after', '', 'generation', 0, 'starts', 1, 'followed', '0')
      call('PEXPIRE', names[count], horizon)
    else
      local after = last_token .. (last_task == task and ' :' or ' ' .. last_task .. ':') .. last_key
      call('SET', names[count], 'R' .. BETWEEN .. token .. common .. id .. BETWEEN .. '1' .. BETWEEN .. fingerprint .. BETWEEN
        .. after, 'PX', horizon)
    end
    last_token, last_task, last_key = token, task, key
  end
  i = i + 4 * jobs
end
return fence
