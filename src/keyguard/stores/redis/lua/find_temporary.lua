-- Returns a value that expires. KEYS: the value's.
return redis.call('GET', KEYS[2])
