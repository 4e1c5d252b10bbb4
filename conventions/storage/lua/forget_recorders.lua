#!lua flags=allow-oom
-- Create the consumer group of the journal, from its first entry, and remove consumers that are long dead.
-- In one step: otherwise a consumer that reads between check and removal would lose its entries.
-- KEYS: the journal
-- ARGV: group, milliseconds without a sign of life after which a consumer without entries is gone
-- Returns the number of consumers forgotten
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
if type(made) == 'table' and made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then
  return made
end
local forgotten = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local found = {}
  for at = 1, #consumer, 2 do
    found[consumer[at]] = consumer[at + 1]
  end
  if found.pending == 0 and found.idle > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], found.name)
    forgotten = forgotten + 1
  end
end
return forgotten
