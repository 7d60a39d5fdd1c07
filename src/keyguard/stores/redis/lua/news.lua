-- Returns the reader's new position, the ids of what changed, and whether that is all.
-- KEYS: audit. ARGV: position or "", how many entries at most.
-- The ids are false if the entry at the position no longer exists. The trail was then restored from a
-- backup, or belongs to a replica that was promoted too early, and nobody knows what is missing.
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
local stop = last and last[1] or '0-0'
if ARGV[2] == '' or ARGV[2] == stop then
  return {stop, {}, 1}
end
if #redis.call('XRANGE', KEYS[2], ARGV[2], ARGV[2]) == 0 then
  return {stop, false, 1}
end
local final, subjects, seen = stop, {}, {}
for _, entry in ipairs(redis.call('XRANGE', KEYS[2], '(' .. ARGV[2], '+', 'COUNT', ARGV[3])) do
  stop = entry[1]
  for place = 1, #entry[2], 2 do
    local subject = entry[2][place + 1]
    if entry[2][place] == 'subject' and not seen[subject] then
      seen[subject] = true
      subjects[#subjects + 1] = subject
    end
  end
end
return {stop, subjects, stop == final and 1 or 0}
