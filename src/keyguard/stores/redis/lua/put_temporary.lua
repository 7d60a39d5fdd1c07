-- Keeps a value until it expires: "put" only if its key has no value yet, "replace" only if it has one.
-- KEYS: the value. ARGV: time, value, milliseconds until it expires, "put" or "replace".
local found = redis.call('GET', KEYS[2])
local is_kept = found and string.match(found, '^[^ ]*') > ARGV[2]
if is_kept ~= (ARGV[5] == 'replace') then
  return {'conflict'}
end
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[4])
return {'done'}
