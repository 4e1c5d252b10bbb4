#!lua flags=allow-oom
-- uses queues claims common batch
-- Record how jobs ended: claim, message and journal in one step. It refuses a token that is not the holder's. It never refuses
-- because time has passed. A second call with the same token gives the same answer and records nothing again.
-- KEYS: prefix
-- ARGV: for each job: claim (`<task>:<key>`, '' when it held none), token, message id, generation, attempt, fingerprint,
--       state ('done' | 'released' | 'continued': only the same message may go on | 'dead'), result as JSON or '' (if dead:
--       its error), ms to wait or 0, ms to keep the claim, tag ('' if the broker is another server), queue, receipt, action
--       for the message ('remove' | 'retry' | 'park': does not use up an attempt | 'keep'), changes to the message as JSON,
--       event as JSON or '', how its batch counts it (see `join`) or ''
-- Returns for each job 'recorded', 'refused' (another holder has the claim), or 'missing' (recorded, but the message that
-- should be tried again is gone)

-- Whether a worker has signed an event. Then it brings the message of a dead job: what lies here may be another one by now.
local function is_signed(event) return string.find(string.sub(event, -64), ',"signature":"[%w_-]+%.[%w+/]+"}$') end

local function append(event, fence, refused, payload)
  if event == '' then return end
  local entry = {'event', event, 'fence', fence, 'at', integer(now)}
  if refused then entry[#entry + 1], entry[#entry + 2] = 'refused', '1' end
  if payload then entry[#entry + 1], entry[#entry + 2] = 'message', payload end
  redis.call('XADD', P .. 'journal', '*', unpack(entry))
end

local function again(tag, queue, receipt, changes, attempt, wait)
  if redis.call('EXISTS', message_key(tag)) == 0 then return 'missing' end
  change(tag, 'attempt', attempt, 'deliveries', 0, 'alone', 1) -- after a first try a message never goes into a group
  if changes ~= '{}' then change(tag, 'changes', changes) end
  if holds(tag, receipt) then
    make_delayed(tag, queue, wait)
    let_go(tag, queue)
  elseif redis.call('ZSCORE', P .. 'delayed:' .. queue, tag) then -- it is parked for this job's own claim, and due earlier
    make_delayed(tag, queue, wait)
  end
  return 'recorded'
end

-- Whether this attempt is older than the last one. Its claim was released, since its process seemed to be dead.
local function is_behind(generation, attempt, its_generation, its_attempt)
  local difference = tonumber(generation) - tonumber(its_generation or 0)
  return difference < 0 or (difference == 0 and tonumber(attempt) < tonumber(its_attempt or 0))
end

-- A start has an outcome after all: the claim keeps those of others only, see `keep_interrupted`.
local function forget_interrupted(key, token)
  local kept, left = redis.call('HGET', key, 'interrupted'), ''
  if not kept then return end
  local own = string.sub(cjson.encode({token}), 1, -2) .. ','
  for entry in string.gmatch(kept, '[^\30]+') do
    if string.sub(entry, 1, #own) ~= own then left = left .. entry .. '\30' end
  end
  if left == '' then redis.call('HDEL', key, 'interrupted') else redis.call('HSET', key, 'interrupted', left) end
end

-- Tell the schedule that waits for this run that it has ended. If the broker is this server, the missing message tells it.
local function end_run(id, claim, state, action, event)
  local key = P .. 'live:' .. id
  if redis.call('EXISTS', key) == 0 then return end
  local ends = state == 'done' or state == 'dead' or (action == 'remove' and claim ~= '')
  if not ends and action == 'remove' and event ~= '' then -- it never ran; if it is superseded, another copy goes on
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
    if before and not WORDS[before] then -- a later release has written it: leave it as it is
      note_unknown('claim:' .. claim)
      append(event, integer(micros), true)
      return 'refused'
    end
    if (holder and holder ~= token) or (before and not holder and is_behind(generation, attempt, its_generation, its_attempt)) then
      append(event, fence, true)
      return 'refused'
    end
    if holder and before ~= 'running' then -- the first reply was lost: give the same answer again
      local gone = (action == 'retry' or action == 'park') and tag ~= '' and redis.call('EXISTS', message_key(tag)) == 0
      return gone and 'missing' or 'recorded'
    end
    if not holder then -- the claim is gone, for example after a flush; or it was released just now, and this start has an outcome after all
      forget_interrupted(key, token)
      redis.call('HSET', key, 'token', token, 'fence', fence, 'id', id, 'generation', generation, 'fingerprint', fingerprint)
    end
    redis.call('HSET', key, 'state', state, 'until', integer(now + wait), 'attempt', next_attempt, 'result', result,
      'starts', 0, 'followed', '0', 'after', '')
    redis.call('PEXPIRE', key, keep)
  end
  local payload = state == 'dead' and tag ~= '' and not is_signed(event) and select(6, sent(tag))
  local answer = 'recorded'
  if action == 'retry' or action == 'park' then
    if tag ~= '' then answer = again(tag, queue, receipt, changes, next_attempt, tonumber(wait)) end
  elseif action == 'remove' then
    remove(tag, queue, receipt)
  elseif state == 'dead' and holds(tag, receipt) then -- it stays until those who wait for its result are told, and never runs again; `claim_new` relies on `alone`
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
