-- Returns writers, and the time up to which each has reported. KEYS: writers.
local writers = redis.call('HGETALL', KEYS[2])
for place = 2, #writers, 2 do
  writers[place] = string.match(writers[place], '^%d+ (%d+)$') or corrupt(KEYS[2])
end
return writers
