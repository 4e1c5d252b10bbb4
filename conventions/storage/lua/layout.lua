-- Refuse to touch what is in Redis where it has the layout of a later release: see `layout_version.py`, whose `LAYOUT` this is.
-- KEYS: the prefix
-- ARGV: those of the script that uses this
-- Returns nothing by itself
-- Error: NEWERLAYOUT
local written = redis.call('GET', KEYS[1] .. 'layout')
if written and written ~= '1' then return redis.error_reply('NEWERLAYOUT ' .. written) end
