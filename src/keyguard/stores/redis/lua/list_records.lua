-- Returns ids and records in the order of an index, and the entry after which to go on. If a key is of
-- another type, Redis's error stands in the record's place.
-- KEYS: index; the record to start after, if any.
-- ARGV, where "" stands for what is missing:
--   the kind of record, how many to return, how many to look at, the entry to start after
--   the records' owner, and four times of a filter
--   the second after which the scores of the index must lie; such an index is sorted by score
--   what entries begin with
--   what entries are ordered by: 'created_at', 'name' or 'id'
-- The script leaves out only records that the filter certainly refuses; the caller applies the filter
-- to the rest. Times are texts of one form, so their order is the order of time.
local records, most, look, last = STORE .. ARGV[2] .. ':', tonumber(ARGV[3]), ARGV[4], ARGV[5]
local owner, ends_before, unused_since, alive_at = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local ended_before, open_at, search, order = ARGV[10], ARGV[11], ARGV[12], ARGV[13]
if KEYS[3] then
  local after = string.sub(KEYS[3], #records + 1)
  local before, id, owned_by = unpack(redis.pcall('HMGET', KEYS[3], order, 'id', 'organization'))
  local is_sound = before and (order ~= 'created_at' or
    string.match(before, '^%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d+Z$'))
  if is_sound and id == after and (owner == '' or string.match(owned_by or '', '^org_%w+$')) then
    before = order == 'id' and '' or before .. (order == 'name' and '\0' or ' ')
    last = (owner == '' or owned_by == owner) and before .. id
  else
    -- The record is missing or damaged. A damaged one still has its place in the index.
    last = nil
    local entries = redis.call('EXISTS', KEYS[3]) == 1 and redis.call('ZRANGE', KEYS[2], 0, -1)
    for _, entry in ipairs(entries or {}) do
      if string.match(entry, '([^ %z]*)$') == after then
        last = entry
      end
    end
  end
  if not last then
    return {'', {}}
  end
end
local is_filtered = owner .. ends_before .. unused_since .. alive_at .. ended_before ~= ''

local function may_be_admitted(record)
  local revoked, ends, grace_ends, used, created, owned_by = unpack(redis.pcall(
    'HMGET', record, 'revoked_at', 'expires_at', 'grace_ends_at', 'last_used_at', 'created_at',
    'organization'))
  if owner ~= '' and owned_by and owned_by ~= owner then
    return false
  end
  ends = ends or ''
  if grace_ends and grace_ends ~= '' and (ends == '' or grace_ends < ends) then
    ends = grace_ends
  end
  if alive_at ~= '' and ((revoked or '') ~= '' or (ends ~= '' and ends <= alive_at)) then
    return false
  end
  if ends_before ~= '' and (ends == '' or ends >= ends_before) then
    return false
  end
  local stop = ends
  if revoked and revoked ~= '' and (stop == '' or revoked < stop) then
    stop = revoked
  end
  if ended_before ~= '' and (stop == '' or stop >= ended_before) then
    return false
  end
  if not used or used == '' then
    used = created or ''
  end
  return unused_since == '' or used < unused_since
end

local function entries_behind()
  if open_at == '' then
    local start = last == '' and '[' .. search or '(' .. last
    local stop = search == '' and '+' or '(' .. search .. '\255'
    return redis.call('ZRANGEBYLEX', KEYS[2], start, stop, 'LIMIT', 0, look)
  end
  local open, behind = redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. open_at, '+inf'), {}
  table.sort(open)
  for _, entry in ipairs(open) do
    if entry > last and #behind < tonumber(look) then
      behind[#behind + 1] = entry
    end
  end
  return behind
end

local rows, entries = {}, entries_behind()
for place, entry in ipairs(entries) do
  local id = string.match(entry, '([^ %z]*)$')
  local record = records .. id
  if not is_filtered or may_be_admitted(record) then
    local found = redis.pcall('HGETALL', record)
    rows[#rows + 1] = {id, found.err or found}
    if #rows == most and place < #entries then
      return {entry, rows}
    end
  end
end
return {#entries == tonumber(look) and entries[#entries] or '', rows}
