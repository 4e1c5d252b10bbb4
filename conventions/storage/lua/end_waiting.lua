#!lua flags=allow-oom
-- uses layout queues claims common batch
-- End messages without a worker. One step removes each message and writes its outcome to the journal and to its batch.
-- KEYS: prefix
-- ARGV: events that may wait in the journal, or 0 where that does not matter; then for each message: queue, place
--       ('queue' | 'delayed' | 'inflight'), tag, score, message id, event as JSON or '', how its batch counts it (see `join`) or '',
--       and where its job is known to be done: claim, fingerprint, ms to keep the claim, else '' three times
-- Returns for each message 1; or 0, and does nothing, if the message has moved or its form is not known here
-- Error: JOURNALFULL, NEWERLAYOUT
local most = tonumber(ARGV[1])
if most > 0 and redis.call('XLEN', P .. 'journal') >= most then
  return redis.error_reply('JOURNALFULL the journal is full: its recorder does not run, or SQL does not answer')
end

-- Restore a claim that an older state of the server has lost. A claim that somebody holds by now stays with its holder.
local function note_done(claim, id, fingerprint, keep)
  local key = P .. 'claim:' .. claim
  local state, fence, till = fields_of(key, 'state', 'fence', 'until')
  if state and not WORDS[state] then return end -- a later release wrote it
  if state == 'done' or (state == 'running' and tonumber(till or 0) > now) then return end
  redis.call('HSET', key, 'state', 'done', 'id', id, 'fingerprint', fingerprint, 'result', '', 'until', integer(now), 'starts', 0,
    'fence', integer(math.max(tonumber(fence or 0) + 1, micros)), 'token', '', 'followed', '1', 'after', '')
  redis.call('PEXPIRE', key, keep)
  wake_parked(claim)
end

local function end_waiting(queue, place, tag, score, id, event, member, claim, fingerprint, keep)
  local key = P .. place .. ':' .. queue
  if redis.call('ZSCORE', key, tag) ~= score then return 0 end
  if is_unknown(tag) then
    note_unknown('message:' .. tag)
    return 0
  end
  if event ~= '' then redis.call('XADD', P .. 'journal', '*', 'event', event, 'fence', '0', 'at', integer(now)) end
  if claim ~= '' then note_done(claim, id, fingerprint, keep) end
  if member ~= '' then join(member, '') end
  end_progress(id, claim ~= '' and 'done' or 'released', member)
  redis.call('DEL', P .. 'live:' .. id) -- a schedule no longer waits for it
  redis.call('ZREM', key, tag)
  let_go(tag, queue)
  redis.call('DEL', message_key(tag))
  return 1
end

local answers = {}
for i = 2, #ARGV, 10 do answers[#answers + 1] = end_waiting(unpack(ARGV, i, i + 9)) end
return answers
