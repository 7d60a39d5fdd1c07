-- Returns a value that expires. KEYS: the value.
return redis.call('GET', KEYS[2])
