-- Moves quarters of a day into the day's bucket. Returns how many hours are done, and the cursor at
-- which to go on in the next hour.
-- KEYS: folds, index, the hash of the day, then for each hour its hash, and the sums of its date.
-- ARGV: cursor in the first hour; the day's bucket; for each hour the first bucket that belongs to the
-- day, and the first after it that does not.
redis.call('ZCARD', KEYS[2])
local day, taken, moved, read, done, cursor = KEYS[3], {}, {}, 0, 0, ARGV[1]
repeat
  done = done + 1
  local hour, sums = KEYS[2 + 2 * done], KEYS[3 + 2 * done]
  local from, to = string.match(ARGV[2 + done], '(%d+) (%d+)')
  local found
  found, cursor = portion(hour, cursor, MOST_MOVED)
  taken[sums] = taken[sums] or {}
  for number = 1, #found, 2 do
    local bucket, key = string.match(found[number], '^(%d+)(.*)$')
    bucket = tonumber(bucket) or corrupt(hour)
    if tonumber(from) <= bucket and bucket < tonumber(to) then
      taken[sums][key] = sum_of(taken[sums][key], cells_of(found[number + 1], hour))
      moved[#moved + 1] = {hour, found[number]}
    end
  end
  read = read + #found / 2
until 3 + 2 * done == #KEYS or read >= MOST_MOVED or cursor ~= '0'

-- The sums of dates lose what was moved.
local kept = {}
for sums, keys in pairs(taken) do
  for key, cells in pairs(keys) do
    local value = redis.call('HGET', sums, '0' .. key)
    local left = value and cells_of(value, sums) or {}
    for _, cell in ipairs(cells) do
      for place = #left, 1, -1 do
        if left[place][1] == cell[1] and left[place][4] == cell[4] then
          left[place][2] = math.max(0, left[place][2] - cell[2])
          left[place][3] = math.max(0, left[place][3] - cell[3])
          if left[place][2] + left[place][3] == 0 then
            table.remove(left, place)
          end
        end
      end
    end
    if #left > 0 then
      kept[#kept + 1] = {sums, '0' .. key, value_of(left)}
    else
      moved[#moved + 1] = {sums, '0' .. key}
    end
  end
end

local all = {}
for _, keys in pairs(taken) do
  for key, cells in pairs(keys) do
    all[key] = sum_of(all[key], cells)
  end
end
for key, cells in pairs(all) do
  kept[#kept + 1] = {day, ARGV[2] .. key, changed(day, ARGV[2] .. key, cells)}
end
note_change(KEYS[1], KEEP_DAYS) -- even if nothing is moved: a replica refuses this write
for _, field in ipairs(kept) do
  redis.call('HSET', unpack(field))
end
for _, field in ipairs(moved) do
  redis.call('HDEL', unpack(field))
end
if #moved > 0 then
  redis.call('PEXPIRE', day, KEEP_DAYS)
  redis.call('ZADD', KEYS[2], 0, string.match(day, ':(%d+-%d+)-%d+$'))
  redis.call('PEXPIRE', KEYS[2], KEEP_DAYS)
end
return {cursor == '0' and done or done - 1, cursor}
