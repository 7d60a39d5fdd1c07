-- Refuses to answer from a server that is no primary, or may be none any more. KEYS[1] is the schema.
-- PERSIST changes nothing, for the schema never expires. A replica refuses it like any write, and so
-- does a primary that is cut off from its replicas (min-replicas-to-write): one of them may have
-- taken over. A primary whose disk fails (MISCONF) takes no writes either, but it answers.
local refusal = redis.pcall('PERSIST', KEYS[1])
if type(refusal) == 'table' and not string.find(refusal.err, 'MISCONF', 1, true) then
  return refusal
end
