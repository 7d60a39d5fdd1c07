-- Refuses to answer from a replica, or from a server that may no longer be the primary.
-- KEYS[1] is the schema.
-- PERSIST changes nothing, because the schema never expires. A replica refuses it like any write. So
-- does a primary that is cut off from its replicas (min-replicas-to-write), as one of them may have
-- taken over. A primary whose disk fails (MISCONF) refuses writes too, but may answer, unless it has
-- also lost all of its replicas.
local refusal = redis.pcall('PERSIST', KEYS[1])
if type(refusal) == 'table' then
  if not string.find(refusal.err, 'MISCONF', 1, true) then
    return refusal
  end
  local info = redis.pcall('INFO', 'replication')
  if type(info) == 'string' and string.find(info, 'min_slaves_good_slaves:0', 1, true) then
    return redis.error_reply('NOREPLICAS Not enough good replicas to write.')
  end
end
