#!lua flags=allow-oom
-- uses layout queues claims common
-- Mark a message as cancelled; claims and progress read the mark.
-- KEYS: prefix
-- ARGV: message id, ms to keep the mark
-- Returns 'queued' (it will not run), 'running' (it is told at its next report of progress) or 'too late'
-- Error: NEWERLAYOUT
local id = ARGV[1]
local score, queue, _, _, generation = sent(id)
redis.call('SET', P .. 'cancel:' .. id, generation or 0, 'PX', ARGV[2])
local place = place_of(id)
if not place then return 'too late' end
if queue and redis.call('ZSCORE', P .. 'delayed:' .. queue, id) then
  make_ready(id, queue, score) -- due now, so that its end is recorded at once
  redis.call('ZREM', P .. 'delayed:' .. queue, id)
end
return place == 'running' and 'running' or 'queued'
