-- Returns the number of listings, and organizations that may have quarters before a time, each with
-- the start of its first quarter. KEYS: unfolded, listings. ARGV: the time, how many.
local listings = redis.call('GET', KEYS[3]) or '0'
return {listings, redis.call(
  'ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. ARGV[2], 'WITHSCORES', 'LIMIT', 0, ARGV[3])}
