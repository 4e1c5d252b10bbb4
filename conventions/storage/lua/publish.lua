#!lua
-- Put messages into their queues. Without allow-oom: a full server must refuse here, and only here.
-- KEYS: prefix
-- ARGV: events that may wait in the journal; what is added to the tag of a message where another message has it, and once in a
--       while, after a space, who sends, as `<layouts> <name>`: see `layout_version.py`; then for each run of messages:
--       what they have in common, which is queue, priority, ms to wait, generation and ms to live or 0; how many, 1,000 at the
--       most; and for each of those: tag, payload, digest of what it asks for
-- Returns for each message its tag, or '' if this same message is already there
-- Error: JOURNALFULL, NEWERLAYOUT
-- uses layout
local call, P = redis.call, KEYS[1]
if call('XLEN', P .. 'journal') >= tonumber(ARGV[1]) then
  return redis.error_reply('JOURNALFULL the journal is full: its recorder does not run, or SQL does not answer')
end
local suffix, layouts, sender = ARGV[2], nil, nil
if string.find(suffix, ' ', 1, true) then
  suffix, layouts, sender = string.match(suffix, '^(%S+) (%S+) (.*)$')
  local clock = call('TIME')
  call('HSET', P .. 'members', sender, layouts .. ':' .. string.format('%.0f', clock[1] * 1000 + math.floor(clock[2] / 1000)))
  call('PEXPIRE', P .. 'members', 86400000)
end

-- The usual case: one message, new and due now. It takes the same steps as below, but stands before the included parts, whose
-- functions the server would create anew at each call.
if #ARGV == 11 and tonumber(ARGV[5]) == 0 and ARGV[7] == '0' and not string.find(ARGV[3], '\31', 1, true) then
  local queue, priority, tag = ARGV[3], ARGV[4], ARGV[9]
  local key = P .. 'message:' .. tag
  if call('EXISTS', key) == 0 then
    local score = string.format('%016.0f', (9 - priority) * 1e14 + call('INCR', P .. 'sequence'))
    local answer = redis.pcall('ZADD', P .. 'queue:' .. queue, score, tag)
    if type(answer) == 'number' then
      call('SET', key, table.concat({score, queue, priority, ARGV[11], ARGV[6], ARGV[10]}, '\31'))
      if call('ZADD', P .. 'wake:' .. queue, 0, '1') == 1 then call('SADD', P .. 'queues', queue) end
      return {tag}
    end
  end
end

-- uses queues
local tags, known = {}, {}
local digests = {} -- by tag, of the messages that this run adds

-- The tag for a new message. Nil if the message is already there, perhaps because a reply was lost.
local function free_tag(tag, digest, generation, due)
  local there, its_generation = digests[tag], generation
  if not there and call('EXISTS', message_key(tag)) == 1 then
    local score, queue, _
    score, queue, _, there, its_generation = sent(tag)
    there = there or 'of another program'
    find_place(tag, queue, score, VISIBILITY, due) -- otherwise it would stay for ever and block its id
  end
  if not there then return tag end
  if there == digest and its_generation == generation then return end
  tag = tag .. suffix
  if not digests[tag] and call('EXISTS', message_key(tag)) == 0 then return tag end
end

local function wake_once(queue)
  if known[queue] then return end
  known[queue] = true -- wake the queue once for all its messages, and list it, unless its wake-up mark is already set
  if wake(queue) == 1 then call('SADD', P .. 'queues', queue) end
end

local function publish(queue, priority, wait, generation, lifetime, first, last)
  local count = (last - first + 1) / 3
  local score = (9 - priority) * STEP + call('INCRBY', P .. 'sequence', count) - count
  local due = false
  if tonumber(wait) > 0 then
    local clock = call('TIME')
    due = integer(clock[1] * 1000 + math.floor(clock[2] / 1000) + wait)
  end
  local places, messages = {}, {} -- scores and tags; index of the message, its tag and score
  digests = {}
  for i = first, last, 3 do
    local tag = free_tag(ARGV[i], ARGV[i + 2], generation, due)
    tags[#tags + 1] = tag or ''
    if tag and tag ~= ARGV[i] then call('SET', P .. 'copy:' .. ARGV[i], tag, 'PX', 2592000000) end -- for `find_message`
    if tag then
      digests[tag], score = ARGV[i + 2], score + 1
      local stands = integer(score)
      places[#places + 1], places[#places + 2] = due or stands, tag
      messages[#messages + 1] = {i, tag, stands}
    end
  end
  if #places == 0 then return end
  if due then call('ZADD', P .. 'delayed:' .. queue, unpack(places)) else all_ready(queue, places) end
  for _, one in ipairs(messages) do
    local i, tag, stands = unpack(one)
    write_message(tag, stands, queue, priority, ARGV[i + 2], generation, ARGV[i + 1])
    if tonumber(lifetime) > 0 then call('PEXPIRE', message_key(tag), lifetime) end -- a reply that perhaps nobody reads
  end
  if tonumber(lifetime) > 0 then
    call('PEXPIRE', P .. 'queue:' .. queue, lifetime)
    wake(queue)
    call('PEXPIRE', P .. 'wake:' .. queue, lifetime)
  else
    wake_once(queue)
  end
end

local i = 3
while i <= #ARGV do
  local queue, priority, wait, generation, lifetime, count = unpack(ARGV, i, i + 5)
  publish(queue, priority, wait, generation, lifetime, i + 6, i + 5 + 3 * count)
  i = i + 6 + 3 * count
end
return tags
