-- Makes a commit, or changes nothing.
-- KEYS: audit, slugs, the keys that must be sorted sets, then the records.
-- ARGV: lists, one after the other, each after its length. K is the number of a key.
--   the number of the last key that must be a sorted set
--   expected records: K, version
--   new organizations: K, id, slug
--   new keys: K, id
--   entries: K of the record's trail, K of the organization's, number of columns, columns
--   writes: command, K, number of arguments, arguments
local at = 2
local function text()
  at = at + 1
  return ARGV[at - 1]
end
local function number() return tonumber(text()) end
local function key() return KEYS[number()] end
local function list()
  local size = number()
  at = at + size
  return unpack(ARGV, at - size, at - 1)
end

-- A key of another type ends the script here, before it writes.
redis.call('XLEN', KEYS[2])
redis.call('HLEN', KEYS[3])
for place = 4, number() do
  redis.call('ZCARD', KEYS[place])
end
for _ = 1, number() do
  local record, version = key(), text()
  local found = redis.call('HMGET', record, 'id', 'version')
  if not found[1] or found[2] ~= version then
    return {'conflict'}
  end
end
for _ = 1, number() do
  local record, id, slug = key(), text(), text()
  local holder = redis.call('HGET', KEYS[3], slug)
  if holder and redis.call('EXISTS', STORE .. 'organization:' .. holder) == 1 then
    return {'organization', slug}
  end
  if redis.call('EXISTS', record) == 1 then
    return {'organization', id}
  end
end
for _ = 1, number() do
  local record, id = key(), text()
  if redis.call('EXISTS', record) == 1 then
    return {'key', id}
  end
end
-- XADD comes first: it fails if the stream has given its last id, though all types are right.
for _ = 1, number() do
  local trail, owned = key(), key()
  local name = padded(redis.call('XADD', KEYS[2], '*', list()))
  redis.call('ZADD', trail, 0, name)
  redis.call('ZADD', owned, 0, name)
end
for _ = 1, number() do
  local command, name = text(), key()
  redis.call(command, name, list())
end
return {'done'}
