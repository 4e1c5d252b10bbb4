#!lua flags=allow-oom
-- uses queues claims common batch
-- Record how jobs ended: claim, message and journal in one step. Refused for a token that is not the holder's, never
-- because time passed; asked again with the same token, it gives the same answer and records nothing twice.
-- KEYS: prefix
-- ARGV: for each job: claim (`<task>:<key>`, '' when it held none), token, message id, generation, attempt, fingerprint,
--       state ('done' | 'released' | 'continued', for the same message only | 'dead'), result (of a dead one: its error)
--       as JSON or '', ms to wait or 0, ms to keep the claim, tag ('' where the broker is elsewhere), queue, receipt,
--       what becomes of the message ('remove' | 'retry' | 'park', which uses no attempt | 'keep'), changes to the
--       message as JSON, event as JSON or '', how its batch counts it (see `join`) or ''
-- Returns for each job 'recorded', 'refused' (the claim is another's), or 'missing' (recorded, but the message that was
-- to be tried again is gone)

local function append(event, fence, refused, payload)
  if event == '' then return end
  local entry = {'event', event, 'fence', fence, 'at', integer(now)}
  if refused then entry[#entry + 1], entry[#entry + 2] = 'refused', '1' end
  if payload then entry[#entry + 1], entry[#entry + 2] = 'message', payload end
  redis.call('XADD', P .. 'journal', '*', unpack(entry))
end

local function again(tag, queue, receipt, changes, attempt, wait)
  if redis.call('EXISTS', message_key(tag)) == 0 then return 'missing' end
  change(tag, 'attempt', attempt, 'deliveries', 0, 'alone', 1) -- it was tried: it goes together with no other
  if changes ~= '{}' then change(tag, 'changes', changes) end
  if holds(tag, receipt) then
    make_delayed(tag, queue, wait)
    let_go(tag, queue)
  elseif redis.call('ZSCORE', P .. 'delayed:' .. queue, tag) then -- parked behind this very job, and due earlier
    make_delayed(tag, queue, wait)
  end
  return 'recorded'
end

-- Whether a job whose claim was released, since its process was thought dead, is behind what has run since.
local function is_behind(generation, attempt, its_generation, its_attempt)
  local difference = tonumber(generation) - tonumber(its_generation or 0)
  return difference < 0 or (difference == 0 and tonumber(attempt) < tonumber(its_attempt or 0))
end

-- A run that a schedule waits for has ended; where the broker is this server, its message is gone, which says the same.
local function end_run(id, claim, state, action, event)
  local key = P .. 'live:' .. id
  if redis.call('EXISTS', key) == 0 then return end
  local ends = state == 'done' or state == 'dead' or (action == 'remove' and claim ~= '')
  if not ends and action == 'remove' and event ~= '' then -- it never ran; of one that is superseded another copy goes on
    ends = cjson.decode(event).kind ~= 'superseded'
  end
  if ends then redis.call('DEL', key) end
end

local function settle(claim, token, id, generation, attempt, fingerprint, state, result, wait, keep, tag, queue, receipt,
                      action, changes, event, member)
  local fence, key = '0', P .. 'claim:' .. claim
  local next_attempt = tonumber(attempt) + (action == 'retry' and 1 or 0)
  if claim ~= '' then
    local holder, before, number, its_generation, its_attempt = fields_of(key, 'token', 'state', 'fence', 'generation', 'attempt')
    fence = number or integer(micros)
    if before and not WORDS[before] then -- a later release has written it: left as it is
      note_unknown('claim:' .. claim)
      append(event, integer(micros), true)
      return 'refused'
    end
    if (holder and holder ~= token) or (before and not holder and is_behind(generation, attempt, its_generation, its_attempt)) then
      append(event, fence, true)
      return 'refused'
    end
    if holder and before ~= 'running' then -- a reply was lost: the same answer again
      local gone = (action == 'retry' or action == 'park') and tag ~= '' and redis.call('EXISTS', message_key(tag)) == 0
      return gone and 'missing' or 'recorded'
    end
    if not holder then -- lost, as after a flush
      redis.call('HSET', key, 'token', token, 'fence', fence, 'id', id, 'generation', generation, 'fingerprint', fingerprint)
    end
    redis.call('HSET', key, 'state', state, 'until', integer(now + wait), 'attempt', next_attempt, 'result', result,
      'starts', 0, 'followed', '0', 'after', '')
    redis.call('PEXPIRE', key, keep)
  end
  local payload = state == 'dead' and tag ~= '' and select(6, sent(tag))
  local answer = 'recorded'
  if action == 'retry' or action == 'park' then
    if tag ~= '' then answer = again(tag, queue, receipt, changes, next_attempt, tonumber(wait)) end
  elseif action == 'remove' then
    remove(tag, queue, receipt)
  elseif state == 'dead' and holds(tag, receipt) then -- kept until its task has heard of it, and never to run again; `claim_new` counts on `alone`
    change(tag, 'ended', 'dead', 'alone', 1)
  end
  append(event, fence, false, payload)
  if member ~= '' then join(member, result) end
  if state == 'done' or state == 'dead' or action == 'remove' then end_progress(id, state, member) end
  if tag == '' then end_run(id, claim, state, action, event) end
  if claim ~= '' and (state == 'done' or state == 'dead' or (state == 'released' and tonumber(wait) == 0)) then
    wake_parked(claim)
  end
  return answer
end

local answers = {}
for i = 1, #ARGV, 17 do answers[#answers + 1] = settle(unpack(ARGV, i, i + 16)) end
return answers
