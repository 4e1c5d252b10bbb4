#!lua flags=allow-oom
-- uses queues claims common batch
-- Check batches: what they wait for. If their next message is due, put them into `closing`, even if keys were deleted.
-- KEYS: prefix
-- ARGV: ids
-- Returns for each that waits for something {id, state, task, actor, chunks or '', items or '', indexes of chunks with an outcome}; `splitting` only where its
-- message is gone
local found = {}
for _, id in ipairs(ARGV) do
  local batch = P .. 'batch:' .. id
  local state, task, actor, chunks = unpack(redis.call('HMGET', batch, 'state', 'task', 'actor', 'chunks'))
  if state == 'running' and chunks and redis.call('HLEN', batch .. ':outcomes') < tonumber(chunks) then
    local items = redis.call('HGET', P .. 'progress:' .. id, 'total') or ''
    found[#found + 1] = {id, state, task, actor or '', chunks, items, redis.call('HKEYS', batch .. ':outcomes')}
  elseif state == 'splitting' and redis.call('EXISTS', message_key(id)) == 0 then
    found[#found + 1] = {id, state, task, actor or '', '', '', {}}
  elseif state == 'running' or state == 'done' then
    note_what_follows(id)
  end
end
return found
