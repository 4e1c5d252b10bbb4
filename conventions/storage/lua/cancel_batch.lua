#!lua flags=allow-oom
-- uses layout queues claims common batch
-- Stop cutting and processing a batch. Its splitter and running chunks learn it at their next report of progress.
-- KEYS: prefix
-- ARGV: id of the batch, ms to keep the mark
-- Returns 1 when it is cancelled now, 0 when it had ended or is not there
-- Error: NEWERLAYOUT
local batch = P .. 'batch:' .. ARGV[1]
local state, chunks = unpack(redis.call('HMGET', batch, 'state', 'chunks'))
local half = state == 'dead' and not chunks -- its splitter failed; the chunks that it has sent go on
if state ~= 'splitting' and state ~= 'running' and not half then return 0 end
end_batch(ARGV[1], 'cancelled')
free_claim(ARGV[1], 'done')
redis.call('SET', P .. 'cancel:' .. ARGV[1], 'any', 'PX', ARGV[2])
note_what_follows(ARGV[1])
return 1
