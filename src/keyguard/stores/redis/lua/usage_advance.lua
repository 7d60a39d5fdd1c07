-- Takes an organization off the list of those with quarters, or notes its first quarter. Changes
-- nothing if an organization was listed in the meantime: it may be this one, with quarters that the
-- caller has not seen.
-- KEYS: unfolded, listings. ARGV: id, the number of listings, the start of the first quarter or "".
if (redis.call('GET', KEYS[3]) or '0') == ARGV[3] then
  if ARGV[4] == '' then
    redis.call('ZREM', KEYS[2], ARGV[2])
  else
    redis.call('ZADD', KEYS[2], ARGV[4], ARGV[2])
    redis.call('PEXPIRE', KEYS[2], KEEP_QUARTERS)
  end
end
return {'done'}
