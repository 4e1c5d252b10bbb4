#!lua flags=allow-oom
-- uses queues claims common
-- Keep messages from going to another worker.
-- KEYS: prefix
-- ARGV: ms until a message goes to another when nothing is heard; then for each message: tag, queue, receipt,
--       its claim ('' when the job has not started) and its token
-- Returns for each message 'held', 'lost' (it is not ours any more), or 'lapsed' (the lease of its claim is over)
local answers = {}
for i = 2, #ARGV, 5 do
  local tag, queue, receipt, claim, token = unpack(ARGV, i, i + 4)
  if not holds(tag, receipt) then
    answers[#answers + 1] = 'lost'
  else
    redis.call('ZADD', P .. 'inflight:' .. queue, integer(now + ARGV[1]), tag) -- also where somebody has deleted the set
    local answer = 'held'
    if claim ~= '' then
      local holder, state, till = peek(P .. 'claim:' .. claim)
      if holder == token and state == 'running' and tonumber(till) < now then answer = 'lapsed' end
    end
    answers[#answers + 1] = answer
  end
end
return answers
