-- Counts hits, one after another. A hit counts all its charges, or none if an enforced one has no room.
-- If a hit fails, the other hits still count.
local function hit()
  local admitted, rows = true, {}
  for number, charge in ipairs(charges) do
    local fits = take(charge)
    rows[number] = row(charge, fits, charge.units)
    if charge.enforced and not fits then
      admitted = false
    end
  end
  if admitted then
    save()
    return reply(true, rows)
  end
  for _, charge in ipairs(charges) do
    states[charge.key] = charge.counting.load(charge.key, charge.window)
  end
  for number, charge in ipairs(charges) do
    if charge.changed then
      rows[number] = row(charge, true, charge.units)
    end
  end
  return reply(false, rows)
end

local replies, failure = {}, nil
while arguments_read < #ARGV do
  local done, found = with_charges(hit)
  if not done then
    failure = failed(found)
    found = failure
  end
  replies[#replies + 1] = found
end
-- One line, or one text of lines: a client reads them faster than a list.
if #replies > 1 then
  return failure and replies or table.concat(replies, '\n')
end
return failure or redis.status_reply(replies[1])
