-- Returns the positions, from 0, of the records that exist. KEYS: records.
local there = {}
for place = 2, #KEYS do
  if redis.call('EXISTS', KEYS[place]) == 1 then
    there[#there + 1] = place - 2
  end
end
return there
