-- Dismisses a hint until a time. KEYS: dismissed. ARGV: hint, time in microseconds.
local MOST_HINTS, DAY = 10000, 86400000
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -MOST_HINTS - 1)
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2]
local left = tonumber(last) / 1000 - redis.call('TIME')[1] * 1000
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.max(left, 0) + DAY))
return {'done'}
