#!lua flags=allow-oom
-- uses queues claims common
-- Take claims, one for each message, and park in place what must wait.
-- KEYS: prefix
-- ARGV: lease in ms, starts without an outcome that make a message poison, '1' when they go to a process together, so
--       that only the first one starts now, or '0'; token and claim, with a space between, of the one after which that
--       first one starts when it has succeeded, or ''; then for each message: claim
--       (`<task>:<key>`), token, start (a pool whose process died may begin one delivery twice), message id,
--       generation, attempt, fingerprint, horizon in ms, ms since the epoch when it was sent or '', tag ('' where the
--       broker is elsewhere), queue, receipt
-- Returns for each message one of
--   {'granted', fence, starts}      the caller holds the claim
--   {'poison', fence, starts, why}  the caller holds it and must not run: it was started so often without an outcome; what is
--                                   known of the last end of its process, or ''
--   {'done', result, id, followed}  finished before, by the message `id`; `result` is JSON
--   {'parked', ms}                  the message waits in its queue; the caller forgets it
--   {'busy', ms}                    the broker is elsewhere: the caller sends a copy that waits
--   {'conflict', id}                the key was used by the message `id` with another payload
--   {'dead', error}                 this generation is a dead letter already; what it failed with, as JSON
--   {'superseded'}                  another copy of the message is further on
--   {'cancelled'}                   the message must not run
--   {'too_old'}                     it was sent before what is remembered: nobody can tell whether it ran
--   {'stale'}                       the message is in other hands, or gone
--   {'alone'}                       it was started before without an outcome: it is back in its queue, to run by itself
local lease, start_limit, together = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1'
local lapses = integer(now + lease)
local last_token, last = string.match(ARGV[4], '^(%S*) (.*)$') -- the last one of a group

local function is_known(name, id) return redis.call('EXISTS', P .. 'claim:' .. name, P .. 'cancel:' .. id) > 0 end

local function park(claim, tag, queue, wait, horizon)
  wait = math.min(math.max(wait, 0), PARK_AT_MOST)
  if tag == '' then return {'busy', integer(wait)} end
  make_delayed(tag, queue, wait + clock[2] % 200) -- not all at the same moment
  let_go(tag, queue)
  redis.call('HSET', P .. 'claim:' .. claim, 'awaited', 1) -- whoever records how it ended wakes it
  redis.call('SADD', P .. 'parked:' .. claim, tag)
  redis.call('PEXPIRE', P .. 'parked:' .. claim, horizon)
  return {'parked', integer(wait)}
end

-- Let a message wait because of a key that a later release has written, in a form that is not known here.
local function wait_for_newer(name, tag, queue)
  note_unknown(name)
  if tag == '' then return {'busy', UNKNOWN_WAITS} end
  make_delayed(tag, queue, UNKNOWN_WAITS + clock[2] % 1000)
  let_go(tag, queue)
  return {'parked', UNKNOWN_WAITS}
end

-- Second: whether the mark is in a form that is not known here.
local function is_cancelled(id, generation)
  local mark = redis.pcall('GET', P .. 'cancel:' .. id)
  if not mark or mark == 'any' then return mark == 'any' end
  local upto = type(mark) == 'string' and tonumber(mark)
  return upto and upto >= generation, not upto
end

-- A run that a schedule waits for has ended; where the broker is this server, its message is gone, which says the same.
local function has_ended(id, tag)
  if tag == '' then redis.call('DEL', P .. 'live:' .. id) end
end

-- `starts`: those without an outcome before this one; `fence`: the last one, 0 of a claim that is new.
local function grant(name, token, start, id, generation, attempt, fingerprint, horizon, tag, receipt, starts, fence)
  local claim, after = P .. 'claim:' .. name, ''
  local answer = starts < start_limit and 'granted' or 'poison'
  if not last then starts = starts + 1 else after = behind(last_token, last, name) end -- of a group, the others count when they begin
  if together then last_token, last = token, name end
  local is_new = fence == 0
  fence = integer(math.max(fence + 1, micros)) -- from the clock, so that it never starts again at 1 after a flush
  -- Most of a group: see `claims`. A string holds neither starts nor a generation, nor what stands between its fields.
  if together and is_new and starts == 0 and generation == 0 and not string.find(id .. fingerprint .. after, BETWEEN, 1, true) then
    local value = table.concat({'R', token, start, fence, lapses, id, attempt, fingerprint, after}, BETWEEN)
    redis.call('SET', claim, value, 'PX', horizon)
    return {answer, fence, starts}
  end
  redis.call('HSET', claim, 'state', 'running', 'token', token, 'start', start, 'fence', fence, 'until', lapses,
    'id', id, 'attempt', attempt, 'fingerprint', fingerprint, 'after', after)
  if not is_new or starts > 0 or generation > 0 then -- else they are not there, which reads the same
    redis.call('HSET', claim, 'generation', generation, 'starts', starts, 'followed', '0')
    redis.call('HDEL', claim, 'result')
  end
  redis.call('PEXPIRE', claim, horizon)
  if tag == '' then
    redis.call('PEXPIRE', P .. 'live:' .. id, horizon) -- it runs: its schedule waits for its end
  elseif not together then -- what has gone with others is looked up, see `place_of`
    redis.call('HSET', P .. 'started', tag, receipt)
    if history(tag, 'deliveries') then change(tag, 'deliveries', 0) end -- starts are counted now
  end
  if answer == 'poison' then return {answer, fence, starts - 1, redis.call('HGET', claim, 'why') or ''} end
  return {answer, fence, starts}
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
  local state, holder, its_start, fence, till, owner, its_generation, its_attempt, its_fingerprint, result, starts, followed, after =
    fields_of(claim, 'state', 'token', 'start', 'fence', 'until', 'id', 'generation', 'attempt', 'fingerprint', 'result',
      'starts', 'followed', 'after')
  if state and not WORDS[state] then return wait_for_newer('claim:' .. name, tag, queue) end
  its_generation, its_attempt = tonumber(its_generation or 0), tonumber(its_attempt or 0)
  till, starts, fence = tonumber(till or 0), starts_of(name, starts, after), tonumber(fence or 0)
  local same, its_result = owner == id, result and result ~= '' and result or 'null'
  if state == 'running' and holder == token and its_start == start then -- a reply was lost: the same answer again
    if starts > start_limit then return {'poison', integer(fence), starts - 1, redis.call('HGET', claim, 'why') or ''} end
    return {'granted', integer(fence), starts}
  end
  if ended then return {'dead', state == 'dead' and same and result or '""'} end
  if state == 'done' and same then
    has_ended(id, tag)
    return {'done', its_result, owner, followed or '0'}
  end
  if state == 'dead' and same and generation == its_generation then -- sent again, or come again: `acknowledge` must find that it has ended
    if tag ~= '' then change(tag, 'ended', 'dead', 'alone', 1) end
    has_ended(id, tag)
    return {'dead', result or '""'}
  end
  -- A job that is done in turns holds its key from turn to turn, as long as its message is there.
  local goes_on = state == 'continued' and not same and (tag == '' or redis.call('EXISTS', message_key(owner)) == 1)
  local runs = (state == 'running' and till > now and holder ~= token) or goes_on
  local cancelled, unreadable = is_cancelled(id, generation)
  if unreadable then return wait_for_newer('cancel:' .. id, tag, queue) end
  if cancelled and not (same and runs) then return {'cancelled'} end
  if not state and sent_at ~= '' and now - tonumber(sent_at) > horizon then return {'too_old'} end
  if state and not same and state ~= 'dead' and its_fingerprint ~= fingerprint and its_fingerprint ~= '' then return {'conflict', owner} end
  if state == 'done' then return {'done', its_result, owner, '0'} end
  if same and (generation < its_generation or (generation == its_generation and attempt < its_attempt)) then
    -- Rewritten in place since it was handed out: its next delivery carries what it is now.
    if tag ~= '' and tonumber(history(tag, 'attempt') or 0) > attempt then
      return park(name, tag, queue, till - now, horizon)
    end
    -- Where messages are here, another copy is seen. Where there is none, the message of the next attempt is lost, and this one was
    -- sent under its id since: nobody else does the job.
    if tag == '' or generation < its_generation or (tag ~= id and redis.call('EXISTS', message_key(id)) == 1) then
      return {'superseded'}
    end
  end
  local redriven = same and generation > its_generation
  if runs or (state == 'released' and not redriven and till > now) then -- its own back-off, too
    return park(name, tag, queue, goes_on and PARK_AT_MOST or till - now, horizon)
  end
  if together and starts > 0 then
    make_ready(tag, queue, score_of(tag))
    change(tag, 'alone', 1)
    count_delivery(tag)
    let_go(tag, queue)
    return {'alone'}
  end
  return grant(name, token, start, id, generation, attempt, fingerprint, horizon, tag, receipt, starts, fence)
end

local answers = {}
for i = 5, #ARGV, 12 do answers[#answers + 1] = take(unpack(ARGV, i, i + 11)) end
return answers
