-- Returns records in the order of an index, and the entry to go on after.
-- KEYS: index; the record to start after, if any.
-- ARGV: kind of record, how many to return, how many to look at, entry to start after, their owner,
-- three times of a filter; "" where one is missing.
-- Only what the filter surely refuses is left out: the caller applies the filter to the rest. Times
-- are texts of one form, so their order is the order of time.
local records, most, look, last = STORE .. ARGV[2] .. ':', tonumber(ARGV[3]), ARGV[4], ARGV[5]
local owner, ends_before, unused_since, alive_at = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
if KEYS[3] then
  local created, id, owned_by = unpack(
    redis.call('HMGET', KEYS[3], 'created_at', 'id', 'organization'))
  if not created or (owner ~= '' and owned_by ~= owner) then
    return {'', {}}
  end
  last = created .. ' ' .. id
end
local is_filtered = ends_before ~= '' or unused_since ~= '' or alive_at ~= ''

local function may_be_admitted(record)
  local revoked, ends, grace_ends, used, created = unpack(redis.call(
    'HMGET', record, 'revoked_at', 'expires_at', 'grace_ends_at', 'last_used_at', 'created_at'))
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
  if not used or used == '' then
    used = created or ''
  end
  return unused_since == '' or used < unused_since
end

local rows, start = {}, last == '' and '-' or '(' .. last
local entries = redis.call('ZRANGEBYLEX', KEYS[2], start, '+', 'LIMIT', 0, look)
for place, entry in ipairs(entries) do
  local record = records .. string.match(entry, ' (.*)$')
  if not is_filtered or may_be_admitted(record) then
    rows[#rows + 1] = redis.call('HGETALL', record)
    if #rows == most and place < #entries then
      return {entry, rows}
    end
  end
end
return {#entries == tonumber(look) and entries[#entries] or '', rows}
