-- How a batch changes when one of its messages ends. A message that joins twice counts once. An outcome never gets worse.
-- `batch:<id>`           state, task, arguments, actor, options, claim, cursor, chunks (once all are cut), repairs, told,
--                        snapshot:<n> (repairs known to `finish`, 0, or to a `recovered`)
-- `batch:<id>:outcomes`  by index of the chunk: 'done' | 'dead' | 'cancelled'
-- `batch:<id>:failed`    the outcomes other than 'done'
-- `batch:<id>:returns`   what `process` returned, as JSON
-- `closing`              batches that still need a message; score: when another worker sends it, ms
-- KEYS: the prefix
-- ARGV: those of the script that uses this
-- Returns nothing by itself; `what_follows` returns two values
local SEND_AGAIN = 60000 -- ms
local STATES_OF_BATCH = {splitting = 1, running = 1, done = 1, dead = 1, cancelled = 1}

-- Returns the message that the batch needs now ('finish' | 'recovered' | '') and its number.
local function what_follows(id)
  local batch = P .. 'batch:' .. id
  local state, chunks, repairs, told = unpack(redis.call('HMGET', batch, 'state', 'chunks', 'repairs', 'told'))
  if state == 'running' and chunks and redis.call('HLEN', batch .. ':outcomes') >= tonumber(chunks) then
    return 'finish', '0'
  end
  if state == 'done' and tonumber(repairs or 0) > tonumber(told or 0) then return 'recovered', repairs end
  return '', '0'
end

-- Note that the batch needs a message. If its sender dies now, another worker sends it later.
local function note_what_follows(id)
  if what_follows(id) == '' then
    redis.call('ZREM', P .. 'closing', id)
  else
    redis.call('ZADD', P .. 'closing', 'NX', integer(now + SEND_AGAIN), id)
  end
end

local function join_chunk(id, index, items, outcome, result, keep)
  local batch, progress = P .. 'batch:' .. id, P .. 'progress:' .. id
  local before = redis.call('HGET', batch .. ':outcomes', index)
  if before and (before == 'done' or outcome ~= 'done') then return end
  redis.call('HSET', batch .. ':outcomes', index, outcome)
  redis.call('HINCRBY', progress, outcome == 'done' and 'done' or 'failed', items)
  if before then
    redis.call('HINCRBY', progress, 'failed', -items)
    redis.call('HINCRBY', batch, 'repairs', 1)
    redis.call('HDEL', batch .. ':failed', index)
  elseif outcome ~= 'done' then
    redis.call('HSET', batch .. ':failed', index, outcome)
  end
  if outcome == 'done' and result ~= '' and result ~= 'null' then
    redis.call('HSET', batch .. ':returns', index, result)
  end
  redis.call('HSET', progress, 'updated_at', string.format('%.3f', now / 1000))
  for _, key in ipairs({batch, batch .. ':outcomes', batch .. ':failed', batch .. ':returns', progress}) do
    redis.call('PEXPIRE', key, keep)
  end
end

local function end_batch(id, state)
  redis.call('HSET', P .. 'batch:' .. id, 'state', state)
  redis.call('HSET', P .. 'progress:' .. id, 'ended', state)
end

-- Release the splitter's claim, so that the same batch can be sent again: the splitter ended between two turns, without
-- holding its claim, or the batch was cancelled after it was cut.
local function free_claim(id, from)
  local name = redis.call('HGET', P .. 'batch:' .. id, 'claim')
  if not name or name == '' then return end
  local state, owner = fields_of(P .. 'claim:' .. name, 'state', 'id')
  if state == from and owner == id then
    redis.call('HSET', P .. 'claim:' .. name, 'state', 'released', 'until', integer(now))
    wake_parked(name)
  end
end

-- `member` is JSON: [batch id, role, number, items, outcome, ms to keep the batch]
local function join(member, result)
  local id, role, number, items, outcome, keep = unpack(cjson.decode(member))
  local batch = P .. 'batch:' .. id
  local state = redis.call('HGET', batch, 'state')
  if not state then return end -- forgotten
  if role == 'chunk' then
    join_chunk(id, integer(number), integer(items), outcome, result, integer(keep))
  elseif role == 'splitter' then
    if outcome ~= 'done' and state == 'splitting' then end_batch(id, outcome) end
    if outcome ~= 'done' then free_claim(id, 'continued') end
    if outcome == 'done' and state == 'cancelled' then free_claim(id, 'done') end -- cancelled when all was cut, before this step
  elseif role == 'finish' then
    if not STATES_OF_BATCH[state] then
      note_unknown('batch:' .. id) -- a later release wrote it, so it stays as it is
    elseif outcome == 'done' and state ~= 'cancelled' then
      redis.call('HSET', batch, 'told', redis.call('HGET', batch, 'snapshot:0') or 0)
      end_batch(id, 'done')
    elseif state == 'running' then
      end_batch(id, outcome)
    end
  else -- recovered; or its dead letter says why not
    local name = 'snapshot:' .. integer(number)
    local told, known = unpack(redis.call('HMGET', batch, 'told', name))
    local upto = math.max(tonumber(told or 0), number, outcome == 'done' and tonumber(known or 0) or 0)
    redis.call('HSET', batch, 'told', integer(upto))
    redis.call('HDEL', batch, name)
  end
  note_what_follows(id)
end

-- Note in the progress of a job that it has ended. A batch ends with its `finish`, not with its splitter.
local function end_progress(id, state, member)
  local progress = P .. 'progress:' .. id
  if redis.call('EXISTS', progress) == 1 and not (member ~= '' and redis.call('EXISTS', P .. 'batch:' .. id) == 1) then
    redis.call('HSET', progress, 'ended', state == 'released' and 'cancelled' or state)
    if state == 'done' then redis.call('HDEL', progress, 'checkpoint') end
  end
end
