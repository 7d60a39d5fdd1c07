-- Deletes entries of the trail, and adds an entry that says how many.
-- KEYS: audit, then the sorted sets that name the entries, of which the first two get the new one.
-- ARGV: the steps as JSON; keys stand without the prefix of the store.
--   gone: the entries: id, the record's trail, the organization's
--   entry: names and values of the new entry; the script fills in how many were deleted
local steps = cjson.decode(ARGV[2])

-- A key of another type ends the script here, before it writes.
redis.call('XLEN', KEYS[2])
for place = 3, #KEYS do
  redis.call('ZCARD', KEYS[place])
end
local count = 0
for _, gone in ipairs(steps.gone) do
  local id, trail, owned = unpack(gone)
  count = count + redis.call('XDEL', KEYS[2], id)
  redis.call('ZREM', STORE .. trail, padded(id))
  redis.call('ZREM', STORE .. owned, padded(id))
end
if count > 0 then
  for place = 1, #steps.entry, 2 do
    if steps.entry[place] == 'after' then
      local told = string.gsub(steps.entry[place + 1], '"entries": 0', '"entries": ' .. count)
      steps.entry[place + 1] = told
    end
  end
  local name = padded(redis.call('XADD', KEYS[2], '*', unpack(steps.entry)))
  redis.call('ZADD', KEYS[3], 0, name)
  redis.call('ZADD', KEYS[4], 0, name)
end
return {'done', count}
