-- The trail's entries as members of sorted sets. Padding makes the order of the bytes the order
-- of the stream.
local function padded(id)
  local ms, number = string.match(id, '^(%d+)-(%d+)$')
  return string.rep('0', 20 - #ms) .. ms .. '-' .. string.rep('0', 20 - #number) .. number
end
local function plain(name)
  local ms, number = string.match(name, '^0*(%d+)-0*(%d+)$')
  return ms .. '-' .. number
end
