-- Adds a part of a flush to one organization, unless it was added before.
-- KEYS: the writer's mark, listed, folds, index, then hashes of hours and of sums.
-- ARGV: seq; part; what this script answered before the store listed the organization, or "";
-- the earliest start in seconds; then for each change the number of its hash, its field, and cells.
-- If the organization may not be listed from that start on, the script adds nothing. Its answer then
-- ends with the number of folds, because a fold may take an organization off the list.
local LISTED, MARK = 86400000, 40 * 86400000 -- milliseconds
local seq, part, first = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[4])
local mark = redis.call('GET', KEYS[1])
if mark then
  local last, last_part = string.match(mark, '^(%d+) (%d+)$')
  if not last then
    corrupt(KEYS[1])
  end
  last, last_part = tonumber(last), tonumber(last_part)
  if last > seq or (last == seq and last_part >= part) then
    redis.call('PEXPIRE', KEYS[1], MARK) -- which a replica refuses
    return {'done'}
  end
end
local listed = tonumber(redis.call('GET', KEYS[2]))
local folds = redis.call('GET', KEYS[3]) or '0'
local is_listed = listed and listed <= first
if not is_listed and ARGV[3] ~= folds then
  return {'unlisted', folds}
end
redis.call('ZCARD', KEYS[4])
local writes = {}
for place = 5, #ARGV, 3 do
  local key, field = KEYS[4 + tonumber(ARGV[place])], ARGV[place + 1]
  writes[#writes + 1] = {key, field, changed(key, field, cells_of(ARGV[place + 2], key))}
end
if not is_listed then
  redis.call('SET', KEYS[2], ARGV[4], 'PX', LISTED)
end
redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', MARK)
for _, write in ipairs(writes) do
  redis.call('HSET', unpack(write))
end
for place = 5, #KEYS do
  redis.call('PEXPIRE', KEYS[place], KEEP_QUARTERS)
  local date = string.match(KEYS[place], ':([%d-]+)T%d+$')
  if date then
    redis.call('ZADD', KEYS[4], 0, date)
  end
end
redis.call('PEXPIRE', KEYS[4], KEEP_DAYS)
return {'done'}
