-- How usage is stored in hashes. There is one for each hour that has quarters, one for each date that
-- has days, and one for the sums of each date's quarters, whose only bucket is 0.
-- The field "BUCKET KEY" holds a key's cells of one bucket; BUCKET is the number of quarters from the
-- time in the hash's name to the bucket's start. The field "BUCKET" holds the sum over all keys.
-- A value is a line with the key's family, and a line "outcome n units tag" for each cell.
local KEEP_QUARTERS, KEEP_DAYS = 60 * 86400000, 860 * 86400000 -- milliseconds since the last write
-- How many fields a script reads, or moves, before it stops to let Redis do something else.
local MOST, MOST_MOVED = 1000, 200
local MOST_COUNTED = 2 ^ 58 -- as in SQL databases; beyond 2 ^ 53 sums are rounded

local function corrupt(key)
  error(CORRUPT .. ' ' .. key, 0)
end

-- Counts a change in a key that holds only this count, so that other scripts notice the change.
local function note_change(key, kept)
  local changes = tonumber(redis.call('GET', key) or 0) or corrupt(key)
  redis.call('SET', key, string.format('%.0f', changes + 1), 'PX', kept)
end

-- Returns the cells in a value, with the family.
local function cells_of(value, key)
  local family = string.match(value, '^[^\n]*\n') or ''
  local cells, length = {family = string.sub(family, 1, -2)}, #family
  for outcome, n, units, tag in string.gmatch(
    string.sub(value, length + 1), '(%S+) (%d+) (%d+) ([^\n]*)\n') do
    cells[#cells + 1] = {outcome, tonumber(n), tonumber(units), tag}
    length = length + #outcome + #n + #units + #tag + 4
  end
  if family == '' or length ~= #value then
    corrupt(key)
  end
  return cells
end

-- Returns the sum of cells and more cells. Either may be nil.
local function sum_of(cells, more)
  if not cells or not more then
    return cells or more
  end
  for _, new in ipairs(more) do
    local known
    for _, cell in ipairs(cells) do
      if cell[1] == new[1] and cell[4] == new[4] then
        known = cell
      end
    end
    if known then
      known[2], known[3] = known[2] + new[2], known[3] + new[3]
    else
      cells[#cells + 1] = new
    end
  end
  return cells
end

local function value_of(cells)
  local lines = {cells.family .. '\n'}
  for _, cell in ipairs(cells) do
    local n, units = math.min(cell[2], MOST_COUNTED), math.min(cell[3], MOST_COUNTED)
    lines[#lines + 1] = string.format('%s %.0f %.0f %s\n', cell[1], n, units, cell[4])
  end
  return table.concat(lines)
end

-- Returns the value of a field after cells were added to it.
local function changed(key, field, cells)
  local value = redis.call('HGET', key, field)
  return value_of(sum_of(value and cells_of(value, key), cells))
end

-- Returns fields and values of a hash, and the cursor at which to go on, '0' if that is all.
local function portion(key, cursor, most)
  if redis.call('HLEN', key) <= most then
    return redis.call('HGETALL', key), '0'
  end
  local found = redis.call('HSCAN', key, cursor, 'COUNT', most)
  return found[2], found[1]
end
