-- Returns how many hashes are done, the cursor at which to go on in the next hash, how many fields of
-- the last hash it has read and how many that hash has, and totals: period, group, n, units. It reads
-- nothing if there was a fold since the caller read the index: a fold moves cells between hashes.
-- KEYS: folds, then hashes.
-- ARGV: the number of folds; cursor in the first hash; what to group by; the only key, the only family
-- and the only outcome, each after "=", or ""; for each hash its periods: the period's number, its
-- first bucket, and the first bucket after it.
if (redis.call('GET', KEYS[2]) or '0') ~= ARGV[1] then
  return {}
end
local group_by, only_key, only_family, only_outcome = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local sums, rows = {}, {}

local function add(period, key, family, outcome, n, units, tag)
  if (only_family ~= '' and only_family ~= '=' .. family)
    or (only_outcome ~= '' and only_outcome ~= '=' .. outcome) then
    return
  end
  local group = group_by == 'key' and key or group_by == 'family' and family
    or group_by == 'outcome' and outcome or group_by == 'tag' and tag or ''
  local groups = sums[period]
  if not groups then
    groups = {}
    sums[period] = groups
  end
  local sum = groups[group]
  if not sum then
    sum = {period, group, 0, 0}
    groups[group] = sum
    rows[#rows + 1] = sum
  end
  sum[3], sum[4] = sum[3] + n, sum[4] + units
end

local function count(period, key, value, name)
  -- Most values hold a single cell, which is quicker to read without a table.
  local family, outcome, n, units, tag = string.match(
    value, '^([^\n]*)\n(%S+) (%d+) (%d+) ([^\n]*)\n$')
  if family then
    return add(period, key, family, outcome, n, units, tag)
  end
  local cells = cells_of(value, name)
  for _, cell in ipairs(cells) do
    add(period, key, cells.family, unpack(cell))
  end
end

-- The sums over all keys, or the cells of one, are found by name.
local suffix
if only_key ~= '' then
  suffix = ' ' .. string.sub(only_key, 2)
elseif only_family == '' and group_by ~= 'key' and group_by ~= 'family' then
  suffix = ''
end
local place, read, cursor, seen, size = 2, 0, ARGV[2], 0, 0
repeat
  place = place + 1
  local name, period_of, fields = KEYS[place], {}, {}
  for period, from, to in string.gmatch(ARGV[place + 4], '(%d+) (%d+) (%d+)') do
    for bucket = tonumber(from), to - 1 do
      period_of[tostring(bucket)] = period
      fields[#fields + 1] = bucket .. (suffix or '')
    end
  end
  if suffix then
    for number, value in ipairs(redis.call('HMGET', name, unpack(fields))) do
      if value then
        count(period_of[string.match(fields[number], '^%d+')], string.sub(suffix, 2), value, name)
      end
    end
    read = read + #fields / 4
  else
    local found
    found, cursor = portion(name, cursor, MOST)
    for number = 1, #found, 2 do
      local bucket, key = string.match(found[number], '^(%d+) (.*)$')
      if period_of[bucket] then
        count(period_of[bucket], key, found[number + 1], name)
      end
    end
    seen, size = #found / 2, redis.call('HLEN', name)
    read = read + seen
  end
until place == #KEYS or read >= MOST or size > MOST
local done = cursor == '0' and place - 2 or place - 3
local reply = {}
for _, sum in ipairs(rows) do
  reply[#reply + 1], reply[#reply + 2] = sum[1], sum[2]
  reply[#reply + 1] = string.format('%.0f', sum[3])
  reply[#reply + 1] = string.format('%.0f', sum[4])
end
return {done, cursor, seen, size, reply}
