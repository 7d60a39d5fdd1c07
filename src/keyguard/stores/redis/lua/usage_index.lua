-- Returns the number of folds, the dates with quarters and the months with days. KEYS: folds, index.
return {redis.call('GET', KEYS[2]) or '0', redis.call('ZRANGE', KEYS[3], 0, -1)}
