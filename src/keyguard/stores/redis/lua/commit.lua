-- Makes a commit, or changes nothing.
-- KEYS: audit, slugs, then all other keys that it uses: a cluster must know them.
-- ARGV: the steps as JSON, each a list of lists; keys stand without the prefix of the store.
--   sets: keys that must be sorted sets, as a list of texts
--   expected: the records that must exist: key, version
--   witnesses: the records of which one must exist, unless there are none: key, version
--   organizations: new ones: key, id, slug
--   records: other new ones: key, id, kind
--   deleted: the keys to delete: key, id, when it stopped as text, and the second of the server's
--     clock from which on it may be deleted
--   entries: the record's trail, the organization's, columns
--   writes: command, key, arguments
local steps = cjson.decode(ARGV[2])

-- A key of another type ends the script here, before it writes.
redis.call('XLEN', KEYS[2])
redis.call('HLEN', KEYS[3])
for _, key in ipairs(steps.sets) do
  redis.call('ZCARD', STORE .. key)
end
for _, record in ipairs(steps.expected) do
  local found = redis.call('HMGET', STORE .. record[1], 'id', 'version')
  if not found[1] or found[2] ~= record[2] then
    return {'conflict'}
  end
end
if not is_witnessed(steps.witnesses) then
  return {'conflict'}
end
for _, new in ipairs(steps.organizations) do
  local key, id, slug = unpack(new)
  local holder = redis.call('HGET', KEYS[3], slug)
  if holder and redis.call('EXISTS', STORE .. 'organization:' .. holder) == 1 then
    return {'organization', slug}
  end
  if redis.call('EXISTS', STORE .. key) == 1 then
    return {'organization', id}
  end
end
for _, new in ipairs(steps.records) do
  if redis.call('EXISTS', STORE .. new[1]) == 1 then
    return {new[3], new[2]}
  end
end
for _, gone in ipairs(steps.deleted) do
  local key, id, read, due = unpack(gone)
  local stop = nil
  local times = redis.call('HMGET', STORE .. key, 'revoked_at', 'expires_at', 'grace_ends_at')
  for _, time in ipairs(times) do
    if time and time ~= '' and (not stop or time < stop) then
      stop = time
    end
  end
  if stop ~= read then
    return {'conflict'}
  end
  if tonumber(redis.call('TIME')[1]) < due then
    return {'early', id}
  end
end
-- XADD comes first: even if all types are right, it fails once the stream has used its last id.
for _, entry in ipairs(steps.entries) do
  local trail, owned, columns = unpack(entry)
  local name = padded(redis.call('XADD', KEYS[2], '*', unpack(columns)))
  redis.call('ZADD', STORE .. trail, 0, name)
  redis.call('ZADD', STORE .. owned, 0, name)
end
for _, write in ipairs(steps.writes) do
  local command, key, arguments = unpack(write)
  redis.call(command, STORE .. key, unpack(arguments))
end
return {'done'}
