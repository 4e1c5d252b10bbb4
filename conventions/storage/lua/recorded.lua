#!lua flags=allow-oom
-- uses claims
-- Say whether the jobs of a group have succeeded, as the calls of `succeed` and `settle` before this one have recorded it
-- or not, and remove the messages of those that have.
-- KEYS: prefix
-- ARGV: queue of all their messages, whose receipts are their tokens, or ''; for each job its claim, token and tag, and where
--       there is no such queue, its queue and receipt
-- Returns for each job 1 or 0
local call, P = redis.call, KEYS[1]
local answers, messages, ended, tags = {}, {}, {}, {} -- messages to remove, their tags, and those by queue

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
  local holder, state = peek(P .. 'claim:' .. claim) -- a hash, or none
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
  call('HDEL', P .. 'started', unpack(ended)) -- of one that asked for its claim by itself
  call('DEL', unpack(messages))
end
return answers
