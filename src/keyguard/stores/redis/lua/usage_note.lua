-- Notes how far a writer has reported. KEYS: writers. ARGV: writer, seq, time in microseconds.
local known = redis.call('HGET', KEYS[2], ARGV[2])
if not known or tonumber(string.match(known, '^%d+') or 0) < tonumber(ARGV[3]) then
  redis.call('HSET', KEYS[2], ARGV[2], ARGV[3] .. ' ' .. ARGV[4])
  redis.call('PEXPIRE', KEYS[2], KEEP_QUARTERS)
end
return {'done'}
