-- Returns entries of one record or owner. KEYS: audit, trail. ARGV: as in list_audit.
local start = ARGV[2] == '' and '+' or '(' .. padded(ARGV[2])
local rows = {}
for _, name in ipairs(redis.call('ZREVRANGEBYLEX', KEYS[3], start, '-', 'LIMIT', 0, ARGV[3])) do
  local id = plain(name)
  rows[#rows + 1] = redis.call('XRANGE', KEYS[2], id, id)[1] or {id, {}}
end
return rows
