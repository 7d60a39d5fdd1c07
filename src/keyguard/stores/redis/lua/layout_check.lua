-- Stops the script unless the store has the layout of this version of keyguard.
-- KEYS[1] is the schema; ARGV[1] the version. The scripts below number their own from 2 on.
local found = redis.call('GET', KEYS[1])
if found ~= ARGV[1] then
  return redis.error_reply(UNFIT .. ' ' .. (found or 'none'))
end
