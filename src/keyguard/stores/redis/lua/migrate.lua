-- Marks an empty database as a store. KEYS: schema, audit. ARGV: version.
-- The trail's first entry names no record: a reader always finds a last entry to stand at.
local found = redis.call('GET', KEYS[1])
if not found then
  redis.call('XADD', KEYS[2], '*', 'made', ARGV[1])
  redis.call('SET', KEYS[1], ARGV[1])
elseif found ~= ARGV[1] then
  return redis.error_reply(UNFIT .. ' ' .. found)
end
return 1
