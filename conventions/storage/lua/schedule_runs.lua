-- Which runs of a schedule have not ended, where two may not overlap; after schedule.lua.
-- KEYS: the prefix
-- ARGV: those of the script that uses this
-- Returns nothing by itself

-- Whether a message, or the batch that it began, has not ended yet.
local function is_live(id, here)
  local batch = redis.call('HGET', P .. 'batch:' .. id, 'state')
  if batch == 'splitting' or batch == 'running' then return true end
  return redis.call('EXISTS', P .. 'live:' .. id) == 1 or (here and redis.call('EXISTS', message_key(id)) == 1)
end

-- Another run of the schedule that has not ended, or nil. Ended runs are removed.
local function live_run(name, own, here)
  local runs = P .. 'schedule:live:' .. name
  local last = redis.call('HGET', entry_of(name), 'last') -- it may have begun when runs were allowed to overlap
  local last_id = last and cjson.decode(last).id
  if last_id and last_id ~= own and is_live(last_id, here) then return last_id end
  for _, id in ipairs(redis.call('ZRANGE', runs, 0, -1)) do
    if id ~= own then
      if is_live(id, here) then return id end
      redis.call('ZREM', runs, id)
    end
  end
end
