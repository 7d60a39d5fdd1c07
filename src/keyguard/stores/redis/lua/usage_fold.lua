-- Moves quarters of a day into the day's bucket. Returns how many hashes are done, and the cursor at
-- which to go on in the next. KEYS: folds, index, the hash of the day, then hashes of hours.
-- ARGV: cursor in the first hour; the day's bucket; for each hour the day's first bucket and the first
-- behind the day.
redis.call('ZCARD', KEYS[2])
local day, sums, moved, read, place, cursor = KEYS[3], {}, {}, 0, 3, ARGV[1]
repeat
  place = place + 1
  local hour, from, to = KEYS[place], string.match(ARGV[place - 1], '(%d+) (%d+)')
  local found, fields = nil, {hour}
  found, cursor = portion(hour, cursor)
  for number = 1, #found, 2 do
    local bucket, key = string.match(found[number], '^(%d+)(.*)$')
    bucket = tonumber(bucket) or corrupt(hour)
    if tonumber(from) <= bucket and bucket < tonumber(to) then
      sums[key] = sum_of(sums[key], cells_of(found[number + 1], hour))
      fields[#fields + 1] = found[number]
    end
  end
  if #fields > 1 then
    moved[#moved + 1] = fields
  end
  read = read + #found / 2
until place == #KEYS or read >= MOST or cursor ~= '0'
local write = {day}
for key, sum in pairs(sums) do
  write[#write + 1] = ARGV[2] .. key
  write[#write + 1] = changed(day, ARGV[2] .. key, sum)
end
note_change(KEYS[1], KEEP_DAYS) -- also if nothing is moved: a replica refuses it
if #moved > 0 then
  redis.call('HSET', unpack(write))
  redis.call('PEXPIRE', day, KEEP_DAYS)
  redis.call('ZADD', KEYS[2], 0, string.match(day, ':(%d+-%d+)-%d+$'))
  redis.call('PEXPIRE', KEYS[2], KEEP_DAYS)
end
for _, fields in ipairs(moved) do
  redis.call('HDEL', unpack(fields))
end
return {cursor == '0' and place - 3 or place - 4, cursor}
