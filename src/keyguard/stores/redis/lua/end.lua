-- Revokes keys or disables an organization, whatever else has changed in them.
-- KEYS: audit, then all other keys that are known beforehand: a cluster must know them.
-- ARGV: the steps as JSON; keys stand without the prefix of the store.
--   id: the id of the record that ends; "" for a family
--   found: the key of that record, or of the index of the family
--   asking: the record of the key that acts, or ""
--   at: the time
--   witnesses: the records of which one must exist, unless there are none: key, version
--   ended_at: the field that an ended record has
--   within: the id of the only organization in which anything may end, or ""
--   without: scopes, as names of an object; nothing ends if a key that would end has one of them
--   fields: names and values to set
--   waits: whether the caller waits for replicas
--   entry: names and values of the entry in the audit trail; the script fills in its subject and
--     organization
-- Times are texts of one form, so their order is the order of time.
local steps = cjson.decode(ARGV[2])

local function works(record)
  local owner, revoked, starts, ends, grace_ends = unpack(redis.call(
    'HMGET', record, 'organization', 'revoked_at', 'not_before', 'expires_at', 'grace_ends_at'))
  if not owner or revoked ~= '' or (starts ~= '' and steps.at < starts) or
    (ends ~= '' and ends <= steps.at) or (grace_ends ~= '' and grace_ends <= steps.at) then
    return false
  end
  return redis.call('HGET', STORE .. 'organization:' .. owner, 'disabled_at') == ''
end

-- A key of another type ends the script here, before it writes.
redis.call('XLEN', KEYS[2])
if steps.asking ~= '' and not works(STORE .. steps.asking) then
  return {'conflict'}
end
if not is_witnessed(steps.witnesses) then
  return {'conflict'}
end
local ids = {steps.id}
if steps.id == '' then
  ids = {}
  for _, entry in ipairs(redis.call('ZRANGE', STORE .. steps.found, 0, -1)) do
    ids[#ids + 1] = string.match(entry, ' (.*)$')
  end
end
-- If one key of a family is of another type in Redis, the others still end.
local look = steps.id == '' and redis.pcall or redis.call
local ending, ended_before = {}, nil
for _, id in ipairs(ids) do
  local record = STORE .. (steps.id == '' and 'key:' .. id or steps.found)
  local found = look('HMGET', record, 'organization', steps.ended_at, 'scopes')
  local known = not found.err and redis.call('EXISTS', record) == 1
  -- A missing or damaged field must not prevent the revocation, or make the entry unreadable.
  local owner = string.match(found[1] or '', '^org_%w+$') or id
  local ended, scopes = found[2] or '', found[3] or ''
  if known and ended == '' and (steps.within == '' or owner == steps.within) then
    for scope in string.gmatch(scopes, '%S+') do
      if steps.without[scope] then
        return {'conflict'}
      end
    end
    redis.call('ZCARD', STORE .. 'trail:' .. id)
    redis.call('ZCARD', STORE .. 'owned:' .. owner)
    ending[#ending + 1] = {id, owner, record}
  elseif known then
    ended_before = record
  end
end
if #ending == 0 then
  -- Only a primary may say that there was nothing to end.
  redis.call('PERSIST', KEYS[1])
  if ended_before and steps.waits then
    -- A write that changes nothing, so that WAIT has a write to wait for.
    redis.pcall('HINCRBY', ended_before, 'version', 0)
  end
end
local answer = {'done'}
for _, each in ipairs(ending) do
  local id, owner, record = unpack(each)
  local columns, own = {}, {subject = id, organization = owner}
  for place = 1, #steps.entry, 2 do
    local field = steps.entry[place]
    columns[place], columns[place + 1] = field, own[field] or steps.entry[place + 1]
  end
  local name = padded(redis.call('XADD', KEYS[2], '*', unpack(columns)))
  redis.call('ZADD', STORE .. 'trail:' .. id, 0, name)
  redis.call('ZADD', STORE .. 'owned:' .. owner, 0, name)
  redis.pcall('HINCRBY', record, 'version', 1) -- it may fail: a damaged version prevents nothing
  redis.call('HSET', record, unpack(steps.fields))
  answer[#answer + 1] = id
end
return answer
