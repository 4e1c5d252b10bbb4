-- Refuse to touch data with the layout of a later release. The number is `LAYOUT` in `layout_version.py`.
-- KEYS: the prefix
-- ARGV: those of the script that uses this
-- Returns nothing by itself
-- Error: NEWERLAYOUT
local written = redis.call('GET', KEYS[1] .. 'layout')
if written and written ~= '1' then return redis.error_reply('NEWERLAYOUT ' .. written) end
