-- Deletes a value that expires and returns it. KEYS: the value.
local found = redis.call('GETDEL', KEYS[2])
return {found and 'done' or 'conflict', found}
