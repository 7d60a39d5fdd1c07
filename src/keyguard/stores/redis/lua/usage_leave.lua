-- Forgets a writer. KEYS: writers. ARGV: writer.
redis.call('HDEL', KEYS[2], ARGV[2])
return {'done'}
