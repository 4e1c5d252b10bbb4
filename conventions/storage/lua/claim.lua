#!lua flags=allow-oom
-- uses queues claims common interrupted
-- Take a claim for each message. Park messages that must wait for the holder of their claim.
-- KEYS: prefix
-- ARGV: lease in ms; the number of starts without an outcome that make a message poison; '1' if the messages are a group, of
--       which only the first one starts now, else '0'; token and claim, with a space between, of the job before the group's
--       first one, or '';
--       then for each message: claim (`<task>:<key>`), token, start (it differs if a pool begins one delivery twice, after a
--       process died), message id, generation, attempt, fingerprint, horizon in ms, ms since the epoch when it was sent or '',
--       tag ('' if the broker is another server), queue, receipt
-- Returns for each message one of
--   {'granted', fence, starts, interrupted}      the caller holds the claim
--   {'poison', fence, starts, why, interrupted}  the caller holds it and must not run: too many starts without an outcome; `why`:
--                                   how its process last ended, or ''
--   {'done', result, id, followed, interrupted}  done before, by the message `id`; `result` is JSON; `followed`: '1' if its follow-ups
--                                   were sent
--   {'parked', ms}                  the message waits in its queue; the caller forgets it
--   {'busy', ms}                    the broker is another server: the caller sends a copy that waits
--   {'conflict', id}                the key was used by the message `id` with another payload
--   {'dead', error}                 this generation is a dead letter already; its error, as JSON
--   {'superseded'}                  another copy of the message is further on
--   {'cancelled', interrupted}      the message must not run
--   {'too_old'}                     it was sent longer ago than claims are kept: nobody can tell whether it ran
--   {'stale'}                       another worker holds the message, or it is gone
--   {'alone'}                       it was started before without an outcome: it is back in its queue, and runs alone next time
-- `interrupted`: the starts without an outcome that the claim keeps, see `keep_interrupted`; missing if it keeps none
local lease, start_limit, together = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1'
local lapses = integer(now + lease)
local last_token, last = string.match(ARGV[4], '^(%S*) (.*)$') -- the job before the next one in the group

local function is_known(name, id) return redis.call('EXISTS', P .. 'claim:' .. name, P .. 'cancel:' .. id) > 0 end

local function park(claim, tag, queue, wait, horizon)
  wait = math.min(math.max(wait, 0), PARK_AT_MOST)
  if tag == '' then return {'busy', integer(wait)} end
  make_delayed(tag, queue, wait + clock[2] % 200) -- spread, so that not all are due at once
  let_go(tag, queue)
  redis.call('HSET', P .. 'claim:' .. claim, 'awaited', 1) -- who settles the claim wakes the parked messages
  redis.call('SADD', P .. 'parked:' .. claim, tag)
  redis.call('PEXPIRE', P .. 'parked:' .. claim, horizon)
  note_parked(tag, queue, wait)
  return {'parked', integer(wait)}
end

-- Let a message wait: a later release has written its claim or its cancel mark in an unknown form.
local function wait_for_newer(name, tag, queue)
  note_unknown(name)
  if tag == '' then return {'busy', UNKNOWN_WAITS} end
  make_delayed(tag, queue, UNKNOWN_WAITS + clock[2] % 1000)
  let_go(tag, queue)
  return {'parked', UNKNOWN_WAITS}
end

-- Whether the message is cancelled. Second value: whether the mark is in an unknown form.
local function is_cancelled(id, generation)
  local mark = redis.pcall('GET', P .. 'cancel:' .. id)
  if not mark or mark == 'any' then return mark == 'any' end
  local upto = type(mark) == 'string' and tonumber(mark)
  return upto and upto >= generation, not upto
end

-- Tell the schedule that waits for this run that it has ended. If the broker is this server, the missing message tells it.
local function has_ended(id, tag)
  if tag == '' then redis.call('DEL', P .. 'live:' .. id) end
end

-- `starts`: the earlier starts without an outcome. `fence`: the last fence; 0 for a new claim. `interrupted`: what the claim keeps.
local function grant(name, token, start, id, generation, attempt, fingerprint, horizon, tag, receipt, starts, fence, interrupted)
  local claim, after = P .. 'claim:' .. name, ''
  local answer = starts < start_limit and 'granted' or 'poison'
  if not last then starts = starts + 1 else after = behind(last_token, last, name) end -- in a group, only the first one starts now
  if together then last_token, last = token, name end
  local is_new = fence == 0
  fence = integer(math.max(fence + 1, micros)) -- from the clock, so that it does not begin at 1 again after a flush
  -- Most claims of a group are strings, see `claims`. A string has no starts and no generation, and no field contains BETWEEN.
  if together and is_new and starts == 0 and generation == 0 and not string.find(id .. fingerprint .. after, BETWEEN, 1, true) then
    local value = table.concat({'R', token, start, fence, lapses, id, attempt, fingerprint, after}, BETWEEN)
    redis.call('SET', claim, value, 'PX', horizon)
    return {answer, fence, starts}
  end
  redis.call('HSET', claim, 'state', 'running', 'token', token, 'start', start, 'fence', fence, 'until', lapses,
    'id', id, 'attempt', attempt, 'fingerprint', fingerprint, 'after', after)
  if not is_new or starts > 0 or generation > 0 then -- missing fields mean the same
    redis.call('HSET', claim, 'generation', generation, 'starts', starts, 'followed', '0')
    redis.call('HDEL', claim, 'result')
  end
  redis.call('PEXPIRE', claim, horizon)
  if tag == '' then
    redis.call('PEXPIRE', P .. 'live:' .. id, horizon) -- it runs, so its schedule waits for its end
  elseif not together then -- for a group, `place_of` looks at the claim
    redis.call('HSET', P .. 'started', tag, receipt)
    if history(tag, 'deliveries') then change(tag, 'deliveries', 0) end -- from now on starts are counted
  end
  if answer == 'poison' then return {answer, fence, starts - 1, redis.call('HGET', claim, 'why') or '', interrupted or nil} end
  return {answer, fence, starts, interrupted or nil}
end

local function take(name, token, start, id, generation, attempt, fingerprint, horizon, sent_at, tag, queue, receipt)
  local claim = P .. 'claim:' .. name
  generation, attempt, horizon = tonumber(generation), tonumber(attempt), tonumber(horizon)
  local ended
  if tag ~= '' then
    if not holds(tag, receipt) or redis.call('EXISTS', message_key(tag)) == 0 then return {'stale'} end
    ended = history(tag, 'ended')
  end
  if not ended and not is_known(name, id) then
    if sent_at ~= '' and now - tonumber(sent_at) > horizon then return {'too_old'} end
    return grant(name, token, start, id, generation, attempt, fingerprint, horizon, tag, receipt, 0, 0)
  end
  local state, holder, its_start, fence, till, owner, its_generation, its_attempt, its_fingerprint, result, starts, followed, after,
    interrupted =
    fields_of(claim, 'state', 'token', 'start', 'fence', 'until', 'id', 'generation', 'attempt', 'fingerprint', 'result',
      'starts', 'followed', 'after', 'interrupted')
  if state and not WORDS[state] then return wait_for_newer('claim:' .. name, tag, queue) end
  its_generation, its_attempt = tonumber(its_generation or 0), tonumber(its_attempt or 0)
  till, starts, fence = tonumber(till or 0), starts_of(name, starts, after), tonumber(fence or 0)
  local same, its_result = owner == id, result and result ~= '' and result or 'null'
  if state == 'running' and holder == token and its_start == start then -- the first reply was lost: give the same answer again
    if starts > start_limit then return {'poison', integer(fence), starts - 1, redis.call('HGET', claim, 'why') or '', interrupted or nil} end
    return {'granted', integer(fence), starts, interrupted or nil}
  end
  if ended then return {'dead', state == 'dead' and same and result or '""'} end
  if state == 'done' and same then
    has_ended(id, tag)
    return {'done', its_result, owner, followed or '0', interrupted or nil}
  end
  if state == 'dead' and same and generation == its_generation then -- it was sent or delivered again: `acknowledge` must see that it has ended
    if tag ~= '' then change(tag, 'ended', 'dead', 'alone', 1) end
    has_ended(id, tag)
    return {'dead', result or '""'}
  end
  -- A job that works in turns holds its key between two turns, while its message exists.
  local goes_on = state == 'continued' and not same and (tag == '' or redis.call('EXISTS', message_key(owner)) == 1)
  local runs = (state == 'running' and till > now and holder ~= token) or goes_on
  local cancelled, unreadable = is_cancelled(id, generation)
  if unreadable then return wait_for_newer('cancel:' .. id, tag, queue) end
  if cancelled and not (same and runs) then
    if same and its_generation <= generation and (state == 'running' or not holder) then
      if state == 'running' and starts > 0 then interrupted = keep_lapsed(claim, till) end
      take_from_holder(name) -- a worker that stood still may wake, and record another end
    end
    return {'cancelled', interrupted or nil}
  end
  if not state and sent_at ~= '' and now - tonumber(sent_at) > horizon then return {'too_old'} end
  if state and not same and state ~= 'dead' and its_fingerprint ~= fingerprint and its_fingerprint ~= '' then return {'conflict', owner} end
  if state == 'done' then return {'done', its_result, owner, '0', interrupted or nil} end
  if same and (generation < its_generation or (generation == its_generation and attempt < its_attempt)) then
    -- The stored message was changed after this delivery. The next delivery has the new values.
    if tag ~= '' and tonumber(history(tag, 'attempt') or 0) > attempt then
      return park(name, tag, queue, till - now, horizon)
    end
    -- If messages are on this server, another copy would be here. If there is none, the message of the next attempt is lost, and
    -- this message was sent later under the same id. Nobody else runs the job, so this message does.
    if tag == '' or generation < its_generation or (tag ~= id and redis.call('EXISTS', message_key(id)) == 1) then
      return {'superseded'}
    end
  end
  local redriven = same and generation > its_generation
  if runs or (state == 'released' and not redriven and till > now) then -- also during its own back-off
    return park(name, tag, queue, goes_on and PARK_AT_MOST or till - now, horizon)
  end
  if together and starts > 0 then
    make_ready(tag, queue, score_of(tag))
    change(tag, 'alone', 1)
    count_delivery(tag)
    let_go(tag, queue)
    return {'alone'}
  end
  if state == 'running' and starts > 0 then interrupted = keep_lapsed(claim, till) end
  return grant(name, token, start, id, generation, attempt, fingerprint, horizon, tag, receipt, starts, fence, interrupted)
end

local answers = {}
for i = 5, #ARGV, 12 do answers[#answers + 1] = take(unpack(ARGV, i, i + 11)) end
return answers
