-- Refuses to answer from a server that is no primary. KEYS[1] is the schema.
-- PERSIST changes nothing, for the schema never expires, and a replica refuses it as it refuses any
-- write. A primary whose disk fails takes no writes either, but nothing else takes its place.
local refusal = redis.pcall('PERSIST', KEYS[1])
if type(refusal) == 'table' and not string.find(refusal.err, 'MISCONF', 1, true) then
  return refusal
end
