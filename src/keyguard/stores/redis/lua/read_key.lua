-- Returns where the trail ends here, and a key and its organization. KEYS: the key's record, audit.
-- Any server may answer: the caller compares where its trail ends with where the primary's does.
local last = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)[1]
local owner = redis.call('HGET', KEYS[2], 'organization') or ''
return {
  last and last[1] or '',
  redis.call('HGETALL', KEYS[2]),
  redis.call('HGETALL', STORE .. 'organization:' .. owner)
}
