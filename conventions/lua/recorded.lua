#!lua flags=allow-oom
-- Say whether the jobs of a group have succeeded, as the calls of `succeed` and `settle` before this one have recorded it
-- or not, and remove the messages of those that have.
-- KEYS: prefix
-- ARGV: for each job its claim, token, tag, queue and receipt
-- Returns for each job 1 or 0
local call, P = redis.call, KEYS[1]
local answers, messages, tags = {}, {}, {} -- messages to remove, and their tags by queue

for i = 1, #ARGV, 5 do
  local claim, token, tag, queue, receipt = unpack(ARGV, i, i + 4)
  local found = call('HMGET', P .. 'claim:' .. claim, 'token', 'state')
  local is_done = found[1] == token and found[2] == 'done'
  answers[#answers + 1] = is_done and 1 or 0
  if is_done and call('HGET', P .. 'message:' .. tag, 'receipt') == receipt then
    messages[#messages + 1] = P .. 'message:' .. tag
    tags[queue] = tags[queue] or {}
    table.insert(tags[queue], tag)
  end
end
for queue, several in pairs(tags) do call('ZREM', P .. 'inflight:' .. queue, unpack(several)) end
if #messages > 0 then call('DEL', unpack(messages)) end
return answers
