-- Names the trail's entries as members of sorted sets. Ids are padded, so that the order of their
-- bytes is the order of the stream.
local function padded(id)
  local ms, number = string.match(id, '^(%d+)-(%d+)$')
  return string.rep('0', 20 - #ms) .. ms .. '-' .. string.rep('0', 20 - #number) .. number
end
local function plain(name)
  local ms, number = string.match(name, '^0*(%d+)-0*(%d+)$')
  return ms .. '-' .. number
end
