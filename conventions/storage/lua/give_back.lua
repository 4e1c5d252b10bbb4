#!lua flags=allow-oom
-- uses queues claims common ready_again interrupted
-- Return messages to their queues, and release the claims of their jobs.
-- KEYS: prefix
-- ARGV: for each message: tag, queue, receipt, ms to wait, '1' when the start counts (its process died) or '0' (it was
--       returned in good order), claim ('' when none may be held), token, what is known of the end of its process or ''
-- Returns how many messages went back
local WENT_BACK = 'its message went back before its outcome was recorded' -- where nobody says more
local returned = 0

-- Returns whether its job had begun.
local function release(claim, token, counted, why)
  local key = P .. 'claim:' .. claim
  local holder, state, starts, after = fields_of(key, 'token', 'state', 'starts', 'after')
  if holder ~= token or state ~= 'running' then return false end
  starts = starts_of(claim, starts, after)
  local had_begun = starts > 0
  if had_begun then keep_interrupted(key, now, why ~= '' and why or WENT_BACK) end
  starts = math.max(starts - (counted and 0 or 1), 0)
  redis.call('HSET', key, 'state', 'released', 'until', 0, 'starts', starts, 'after', '')
  if counted and why ~= '' then redis.call('HSET', key, 'why', why) end -- of the starts that count
  redis.call('HDEL', key, 'token') -- a job that ends at this moment may still record its outcome
  wake_parked(claim)
  return had_begun
end

for i = 1, #ARGV, 8 do
  local tag, queue, receipt, wait, counted, claim, token, why = unpack(ARGV, i, i + 7)
  local had_begun = claim ~= '' and release(claim, token, counted == '1', why)
  if holds(tag, receipt) then
    -- the score of its first arrival: it goes back to the front
    local score = score_of(tag)
    if score and tonumber(wait) > 0 then make_delayed(tag, queue, tonumber(wait)) else make_ready(tag, queue, score) end
    if counted == '1' then count_delivery(tag) end
    if had_begun then ready_again(tag, now + tonumber(wait)) end
    if had_begun or counted == '1' then note_interrupted(tag) end -- its claim may be in another server
    let_go(tag, queue)
    returned = returned + 1
  end
end
return returned
