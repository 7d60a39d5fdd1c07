-- Records last uses, unless a later one is known. A key of another type is skipped.
-- KEYS: the keys' records. ARGV: time and address of each.
for place = 2, #KEYS do
  local at, address = ARGV[place * 2 - 2], ARGV[place * 2 - 1]
  local found = redis.pcall('HMGET', KEYS[place], 'id', 'last_used_at')
  if found[1] and (not found[2] or found[2] == '' or found[2] < at) then
    redis.call('HSET', KEYS[place], 'last_used_at', at, 'last_used_address', address)
  end
end
return 1
