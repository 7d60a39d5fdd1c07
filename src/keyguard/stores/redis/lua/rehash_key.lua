-- Replaces a digest unless it has changed. KEYS: the key's record. ARGV: old digest, new digest.
if redis.call('HGET', KEYS[2], 'digest') == ARGV[2] then
  redis.call('HSET', KEYS[2], 'digest', ARGV[3])
end
return 1
