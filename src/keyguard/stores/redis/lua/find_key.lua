-- Returns a key and its organization. KEYS: the key's record.
local key = redis.call('HGETALL', KEYS[2])
if #key == 0 then
  return false
end
local owner = redis.call('HGET', KEYS[2], 'organization') or ''
return {key, redis.call('HGETALL', STORE .. 'organization:' .. owner)}
