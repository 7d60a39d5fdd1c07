-- Counts more units, or refunds some. ARGV ends with a time for each bucket, in microseconds, until
-- which its units can be refunded.
local done, found = with_charges(function()
  for number, charge in ipairs(charges) do
    local ends = tonumber(ARGV[arguments_read + number]) / 1000000
    if charge.units > 0 and charge.counting.more then
      charge.changed = charge.counting.more(states[charge.key], charge.window, charge.units, ends)
    elseif charge.units > 0 then
      charge.counting.add(states[charge.key], charge.units)
      charge.changed = true
    elseif charge.units < 0 then
      charge.changed = charge.counting.back(states[charge.key], charge.window, -charge.units, ends)
    end
  end
  save()
  local rows = {}
  for number, charge in ipairs(charges) do
    rows[number] = row(charge, charge.counting.fits(states[charge.key], charge.amount, charge.window, 1), 1)
  end
  return reply(true, rows)
end)
return done and redis.status_reply(found) or failed(found)
