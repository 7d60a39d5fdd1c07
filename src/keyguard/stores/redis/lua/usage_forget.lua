-- Deletes days before a time. Returns how many hashes are done, and the cursor at which to go on in
-- the next hash. A month without days leaves the index.
-- KEYS: folds, index, then hashes of dates of one month.
-- ARGV: cursor in the first date; for each date the first bucket that is kept.
redis.call('ZCARD', KEYS[2])
for number = 3, #KEYS do
  redis.call('HLEN', KEYS[number])
end
note_change(KEYS[1], KEEP_DAYS)
local read, place, cursor = 0, 2, ARGV[1]
repeat
  place = place + 1
  local found
  found, cursor = portion(KEYS[place], cursor, MOST)
  for number = 1, #found, 2 do
    if tonumber(string.match(found[number], '^%d+') or 0) < tonumber(ARGV[place - 1]) then
      redis.call('HDEL', KEYS[place], found[number])
    end
  end
  read = read + #found / 2
until place == #KEYS or read >= MOST or cursor ~= '0'
local done = cursor == '0' and place - 2 or place - 3
local dates, month = string.match(KEYS[3], '^(.*:(%d+-%d+)-)%d+$')
for number = 1, 31 do
  if redis.call('EXISTS', string.format('%s%02d', dates, number)) == 1 then
    return {done, cursor}
  end
end
redis.call('ZREM', KEYS[2], month)
return {done, cursor}
