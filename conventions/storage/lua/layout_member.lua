#!lua flags=allow-oom
-- Report that a process lives, and which layouts it knows. The layout in Redis becomes the highest that all living processes know.
-- KEYS: prefix
-- ARGV: name of the process, the lowest and the highest layout that it knows, ms without a report after which a process counts as dead
-- Returns {the layout in Redis, how many living processes do not know the highest layout of this one}
local P, own, lapse = KEYS[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local members = P .. 'members' -- hash: name to `<lowest>:<highest>:<ms of its last report>`
redis.call('HSET', members, ARGV[1], ARGV[2] .. ':' .. ARGV[3] .. ':' .. string.format('%.0f', now))
redis.call('PEXPIRE', members, 86400000)

local all, known_by_all, behind = redis.call('HGETALL', members), own, 0
for i = 1, #all, 2 do
  local highest, at = string.match(all[i + 1], '^%d+:(%d+):(%d+)$') -- a later release may write another form, and knows newer layouts
  if highest and now - at > lapse then
    redis.call('HDEL', members, all[i])
  elseif highest and tonumber(highest) < own then
    known_by_all, behind = math.min(known_by_all, highest), behind + 1
  end
end

local layout = redis.call('GET', P .. 'layout')
if not layout then -- no data yet, or data of a release from before layouts, which is layout 1
  layout = redis.call('EXISTS', P .. 'sequence', P .. 'journal', P .. 'queues') == 0 and tostring(known_by_all) or '1'
  redis.call('SET', P .. 'layout', layout)
end
local present = tonumber(layout)
if present and present >= tonumber(ARGV[2]) and present < known_by_all then
  layout = tostring(known_by_all)
  redis.call('SET', P .. 'layout', layout)
end
return {layout, behind}
