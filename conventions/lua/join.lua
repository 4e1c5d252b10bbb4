#!lua flags=allow-oom
-- Record the outcome of one chunk of a batch. Joining twice counts once; an outcome moves only from dead to done.
-- KEYS: batch (hash), outcomes (hash: index -> outcome), progress (hash), returns (hash: index -> JSON)
-- ARGV: chunk index, outcome ('done' | 'dead'), items in the chunk, what `process` returned as JSON or '', ms to keep
-- Returns {1 if this changed the batch, 1 if it repaired a dead chunk, 1 if every chunk has an outcome now}
local before = redis.call('HGET', KEYS[2], ARGV[1])
local changed, repaired = 0, 0
if not before or (before == 'dead' and ARGV[2] == 'done') then
  changed = 1
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
  redis.call('HINCRBY', KEYS[3], ARGV[2] == 'done' and 'done' or 'failed', ARGV[3])
  if before then
    repaired = 1
    redis.call('HINCRBY', KEYS[3], 'failed', -ARGV[3])
  end
  if ARGV[4] ~= '' then redis.call('HSET', KEYS[4], ARGV[1], ARGV[4]) end
  redis.call('HSET', KEYS[3], 'updated_at', redis.call('TIME')[1])
  for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[5]) end
end
local chunks = redis.call('HGET', KEYS[1], 'chunks')
local complete = chunks and redis.call('HLEN', KEYS[2]) >= tonumber(chunks) and 1 or 0
return {changed, repaired, complete}
