-- Returns ids and digests, and the id to go on after.
-- KEYS: ids. ARGV: id to start after or "", how many to look at.
local start = ARGV[2] == '' and '-' or '(' .. ARGV[2]
local ids = redis.call('ZRANGEBYLEX', KEYS[2], start, '+', 'LIMIT', 0, ARGV[3])
local rows = {}
for _, id in ipairs(ids) do
  local found = redis.pcall('HMGET', STORE .. 'key:' .. id, 'revoked_at', 'digest')
  if found[1] == '' and found[2] then
    rows[#rows + 1] = {id, found[2]}
  end
end
return {#ids == tonumber(ARGV[3]) and ids[#ids] or '', rows}
