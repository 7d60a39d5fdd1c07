-- Lists organizations that have quarters, each with the start of its first. KEYS: unfolded, listings.
-- ARGV: id and start of each.
redis.call('ZCARD', KEYS[2])
note_change(KEYS[3], KEEP_QUARTERS)
for place = 2, #ARGV, 2 do
  local known = redis.call('ZSCORE', KEYS[2], ARGV[place])
  if not known or tonumber(ARGV[place + 1]) < tonumber(known) then
    redis.call('ZADD', KEYS[2], ARGV[place + 1], ARGV[place])
  end
end
redis.call('PEXPIRE', KEYS[2], KEEP_QUARTERS)
return {'done'}
