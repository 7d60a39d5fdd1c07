-- Returns an organization. KEYS: its record.
return redis.call('HGETALL', KEYS[2])
