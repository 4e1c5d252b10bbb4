#!lua flags=allow-oom
-- uses queues claims
-- Take the claims of messages that go to a process together, where nothing is known of any of them, as nearly always: all
-- or none. As `claim` would, in fewer words, of which the server makes a string each.
-- KEYS: prefix
-- ARGV: lease in ms; token, task and key of the one after which the first starts when it has succeeded, or '' three times;
--       what the others have in common: start; then for each run of messages of one task, which has no colon: task,
--       horizon in ms, ms since the epoch when the first of them was sent, how many, and for each of those: key, message
--       id, which is its tag, fingerprint, and receipt, which is its token. None has `BETWEEN` in it, no key is twice,
--       and none has ended as dead: that goes to a process alone, see `settle`
-- Returns the fence of all of them; 0 where one is known, cancelled, too old, or in other hands: nothing was done
local call = redis.call
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local last_token, last_task, last_key, start = ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local names, count = {}, 0 -- for each message the key of its claim, then that of what would cancel it
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
