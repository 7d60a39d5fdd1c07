-- Returns the server's time in seconds, and entries of the trail, the oldest first.
-- KEYS: audit. ARGV: id to start after or "", how many.
local start = ARGV[2] == '' and '-' or '(' .. ARGV[2]
return {redis.call('TIME')[1], redis.call('XRANGE', KEYS[2], start, '+', 'COUNT', ARGV[3])}
