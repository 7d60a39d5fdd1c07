-- Returns the hints that are dismissed at a time. KEYS: dismissed. ARGV: the time in microseconds.
return redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. ARGV[1], '+inf')
