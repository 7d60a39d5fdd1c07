-- Counts the charges of a hit, or none if an enforced one has no room.
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
