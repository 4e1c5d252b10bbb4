#!lua flags=allow-oom
-- uses claims
-- Tell which jobs of a group are recorded as done by earlier calls of `succeed` and `settle`. Remove the messages of these jobs.
-- KEYS: prefix
-- ARGV: the queue, if all messages are of one queue and each receipt is its token, else ''; for each job: claim, token, tag,
--       and, without a common queue, its queue and receipt
-- Returns for each job 1 or 0
local call, P = redis.call, KEYS[1]
local answers, messages, ended, tags = {}, {}, {}, {} -- messages to remove; their tags; their tags by queue

local common = ARGV[1] ~= '' and ARGV[1]
local words = common and 3 or 5

if #ARGV < 2 then return answers end
local claims, all_tags = {}, {}
for i = 2, #ARGV, words do claims[#claims + 1], all_tags[#all_tags + 1] = P .. 'claim:' .. ARGV[i], ARGV[i + 2] end
local values, receipts = call('MGET', unpack(claims)), call('HMGET', P .. 'receipts', unpack(all_tags))

local function is_done(claim, token, value)
  if value then
    local done = 'D' .. BETWEEN .. token .. BETWEEN
    return string.sub(value, 1, #done) == done
  end
  local holder, state = peek(P .. 'claim:' .. claim) -- the claim is a hash, or missing
  return holder == token and state == 'done'
end

for i = 2, #ARGV, words do
  local claim, token, tag = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local queue, receipt = common or ARGV[i + 3], common and token or ARGV[i + 4]
  local n = #answers + 1
  local done = is_done(claim, token, values[n])
  answers[n] = done and 1 or 0
  if done and receipts[n] == receipt then
    messages[#messages + 1], ended[#ended + 1] = P .. 'message:' .. tag, tag
    tags[queue] = tags[queue] or {}
    table.insert(tags[queue], tag)
  end
end
for queue, several in pairs(tags) do call('ZREM', P .. 'inflight:' .. queue, unpack(several)) end
if #messages > 0 then
  call('HDEL', P .. 'receipts', unpack(ended))
  call('HDEL', P .. 'started', unpack(ended)) -- for a job that asked for its own claim
  call('DEL', unpack(messages))
end
return answers
