-- Returns entries of the trail, newest first. KEYS: audit. ARGV: id to start before or "", how many.
local start = ARGV[2] == '' and '+' or '(' .. ARGV[2]
return redis.call('XREVRANGE', KEYS[2], start, '-', 'COUNT', ARGV[3])
