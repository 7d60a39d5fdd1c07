-- Returns a record. KEYS: the record.
return redis.call('HGETALL', KEYS[2])
