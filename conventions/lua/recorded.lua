#!lua flags=allow-oom
-- uses claims
-- Say whether the jobs of a group have succeeded, as the calls of `succeed` and `settle` before this one have recorded it
-- or not, and remove the messages of those that have.
-- KEYS: prefix
-- ARGV: queue of all their messages, whose receipts are their tokens, or ''; for each job its claim, token and tag, and where
--       there is no such queue, its queue and receipt
-- Returns for each job 1 or 0
local call, P = redis.call, KEYS[1]
local answers, messages, tags = {}, {}, {} -- messages to remove, and their tags by queue

local common = ARGV[1] ~= '' and ARGV[1]
local words = common and 3 or 5

local function values()
  local keys = {}
  for i = 2, #ARGV, words do keys[#keys + 1] = P .. 'claim:' .. ARGV[i] end
  return #keys > 0 and call('MGET', unpack(keys)) or {}
end

local function is_done(claim, token, value)
  if value then
    local done = 'D' .. BETWEEN .. token .. BETWEEN
    return string.sub(value, 1, #done) == done
  end
  local holder, state = peek(P .. 'claim:' .. claim) -- a hash, or none
  return holder == token and state == 'done'
end

local found = values()
for i = 2, #ARGV, words do
  local claim, token, tag = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local queue, receipt = common or ARGV[i + 3], common and token or ARGV[i + 4]
  local done = is_done(claim, token, found[#answers + 1])
  answers[#answers + 1] = done and 1 or 0
  if done and call('HGET', P .. 'message:' .. tag, 'receipt') == receipt then
    messages[#messages + 1] = P .. 'message:' .. tag
    tags[queue] = tags[queue] or {}
    table.insert(tags[queue], tag)
  end
end
for queue, several in pairs(tags) do call('ZREM', P .. 'inflight:' .. queue, unpack(several)) end
if #messages > 0 then call('DEL', unpack(messages)) end
return answers
