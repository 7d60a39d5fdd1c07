-- Returns the id of the organization with a slug. KEYS: slugs. ARGV: slug.
return redis.call('HGET', KEYS[2], ARGV[2])
