-- Counts in Redis what keyguard.core.limits.windows counts in Python; tests hold the two together.
-- KEYS: buckets.
-- ARGV: "number time": how many buckets, and the time in seconds; without a time, the server's counts.
--   Then for each bucket "strategy amount window units enforced"; the units are the cost of a hit, or
--   the change of an adjustment.
-- All buckets are read before any is written.
local JUST_AFTER = 0.000001
local now, charges, states -- of the present hit or adjustment
local keys_read, arguments_read = 0, 0

local function numbers(key, pattern)
  local text = redis.call('GET', key)
  if not text then
    return nil
  end
  local a, b, c = string.match(text, pattern)
  if not a then
    error(CORRUPT .. ' ' .. key, 0)
  end
  return tonumber(a), tonumber(b), tonumber(c)
end

local function keep(key, text, ends)
  redis.call('SET', key, text, 'PX', math.max(1, math.ceil((ends - now) * 1000)) + 1000)
end

local fixed = {}

function fixed.load(key, window)
  local started, count = numbers(key, '^(%-?[%d.]+) (%d+)$')
  if not started or now >= started + window then
    return {started = now, count = 0}
  end
  return {started = started, count = count}
end

function fixed.tally(state, amount, window)
  local ends = state.started + window
  return amount - state.count, state.count > 0 and ends - now or 0, ends
end

function fixed.fits(state, amount, window, cost)
  return state.count + cost <= amount
end

function fixed.wait(state, amount, window, cost)
  return state.started + window - now
end

function fixed.add(state, units)
  state.count = state.count + units
end

function fixed.back(state, window, units, ends)
  if now >= ends then
    return false -- the window has ended
  end
  state.count = math.max(0, state.count - units)
  return true
end

function fixed.save(state, key, window)
  keep(key, string.format('%.6f %.0f', state.started, state.count), state.started + window)
end

local sliding = {}

function sliding.load(key, window)
  local index = math.floor(now / window)
  local known, current, previous = numbers(key, '^(%-?%d+) (%d+) (%d+)$')
  if not known or known < index - 1 then
    current, previous = 0, 0
  elseif known == index - 1 then
    current, previous = 0, current
  end
  local left = (index + 1) * window - now
  return {index = index, current = current, previous = previous, left = left}
end

function sliding.tally(state, amount, window)
  local weighted, reset = state.current, 0
  if state.previous > 0 then
    weighted = weighted + state.previous * state.left / window
    reset = math.fmod(state.left, window / state.previous)
  end
  if state.current > 0 then
    local whole = math.fmod(state.left, window)
    reset = state.previous > 0 and math.min(reset, whole) or whole
  end
  return amount - math.floor(weighted), reset, (state.index + 1) * window
end

function sliding.fits(state, amount, window, cost)
  return math.floor(state.previous * state.left / window + state.current) + cost <= amount
end

function sliding.wait(state, amount, window, cost)
  local wait
  if state.current + cost <= amount then
    wait = state.left - (amount - cost - state.current + 1) * window / state.previous
  else
    wait = state.left + math.max(0, window - (amount - cost + 1) * window / state.current)
  end
  return math.max(0, wait) + JUST_AFTER
end

function sliding.add(state, units)
  state.current = state.current + units
end

function sliding.back(state, window, units, ends)
  if now >= ends then
    return false
  end
  state.current = math.max(0, state.current - units)
  return true
end

function sliding.save(state, key, window)
  local text = string.format('%.0f %.0f %.0f', state.index, state.current, state.previous)
  keep(key, text, (state.index + 2) * window)
end

local moving = {}

local function parsed(key, text)
  local time, units = string.match(text, '^(%-?[%d.]+) (%d+)$')
  if not time then
    error(CORRUPT .. ' ' .. key, 0)
  end
  return tonumber(time), tonumber(units)
end

-- Iterates over the entries of a log, oldest first. It reads 256 at a time.
local function entries(key)
  local first, chunk, at = 1, {}, 0
  return function()
    if at == #chunk then
      chunk, at = redis.call('LRANGE', key, first, first + 255), 0
      first = first + #chunk
    end
    at = at + 1
    if chunk[at] then
      return parsed(key, chunk[at])
    end
  end
end

function moving.load(key, window)
  local total = redis.call('LINDEX', key, 0)
  if not total then
    return {key = key, used = 0, kept = 0, added = 0, edits = {}, missing = true}
  end
  total = tonumber(total)
  if not total then
    error(CORRUPT .. ' ' .. key, 0)
  end
  local gone = 0
  for time, units in entries(key) do
    if time >= now - window then
      break
    end
    total, gone = total - units, gone + 1
  end
  if gone > 0 then
    redis.call('LTRIM', key, gone, -1)
    redis.call('LSET', key, 0, string.format('%.0f', total))
  end
  return {key = key, used = total, kept = total, added = 0, edits = {}}
end

function moving.tally(state, amount, window)
  -- A hit that is exactly one window old still takes room, but is no longer shown.
  local seen, oldest = state.used, nil
  for time, units in entries(state.key) do
    if time > now - window then
      oldest = time
      break
    end
    seen = seen - units
  end
  if seen <= 0 or not oldest then
    oldest = now
  end
  return amount - math.max(0, seen), oldest + window - now, now + window
end

function moving.fits(state, amount, window, cost)
  return state.used + cost <= amount
end

function moving.wait(state, amount, window, cost)
  local used = state.used
  for time, units in entries(state.key) do
    used = used - units
    if used + cost <= amount then
      return time + window - now + JUST_AFTER
    end
  end
  return window + JUST_AFTER
end

function moving.add(state, units)
  state.added = state.added + units
  state.used = state.kept + state.added
end

-- Iterates over the entries of a log up to a time, newest first, with their numbers.
local function counted_by(state, time)
  local last, chunk, at = -1, {}, 0
  return function()
    while true do
      if at == 0 then
        chunk = redis.call('LRANGE', state.key, last - 255, last)
        at = #chunk
        last = last - at
      end
      local index = last + at
      local text = chunk[at]
      if not text or not string.find(text, ' ', 1, true) then
        return nil -- the first element is the total
      end
      at = at - 1
      local entry = state.edits[index]
      if not entry then
        local known, units = parsed(state.key, text)
        entry = {time = known, units = units}
      end
      if entry.time <= time then
        return index, entry
      end
    end
  end
end

-- Counts more at the time of the first count, if that entry still exists.
function moving.more(state, window, units, ends)
  local counted = ends - window + JUST_AFTER
  if now < ends then
    for index, entry in counted_by(state, counted) do
      if entry.time >= counted - 2 * JUST_AFTER then
        entry.units = entry.units + units
        state.edits[index] = entry
        state.kept = state.kept + units
        state.used = state.kept + state.added
        return true
      end
      break
    end
  end
  moving.add(state, units)
  return true
end

-- Refunds from entries that existed when the units were counted, the newest first.
function moving.back(state, window, units, ends)
  local counted = ends - window + JUST_AFTER
  if now <= counted then
    local back = math.min(state.added, units)
    state.added, units = state.added - back, units - back
  end
  if units > 0 then
    for index, entry in counted_by(state, counted) do
      local back = math.min(entry.units, units)
      entry.units, units, state.kept = entry.units - back, units - back, state.kept - back
      state.edits[index] = entry
      if units == 0 then
        break
      end
    end
  end
  state.used = state.kept + state.added
  return true
end

function moving.save(state, key, window)
  local emptied = false
  for index, entry in pairs(state.edits) do
    local text = entry.units > 0 and string.format('%.6f %.0f', entry.time, entry.units) or 'x'
    emptied = emptied or entry.units == 0
    redis.call('LSET', key, index, text)
  end
  if emptied then
    redis.call('LREM', key, 0, 'x')
  end
  if state.added > 0 then
    local text = string.format('%.6f %.0f', now, state.added)
    if state.missing then
      redis.call('RPUSH', key, '0', text)
    else
      redis.call('RPUSH', key, text)
    end
    redis.call('PEXPIRE', key, math.ceil(window * 1000) + 1000)
  end
  if not state.missing or state.added > 0 then
    redis.call('LSET', key, 0, string.format('%.0f', state.used))
  end
end

local STRATEGIES = {f = fixed, s = sliding, m = moving}

local function server_time()
  local time = redis.call('TIME')
  return time[1] + time[2] / 1000000
end

-- Returns an error as a reply. In Redis 7, pcall returns only the error's text, which begins with the
-- error's code if the server has refused a command.
local function failed(problem)
  local text = type(problem) == 'table' and problem.err or problem
  return {err = string.match(text, '^%u+ ') and text or 'ERR ' .. text}
end

-- Runs a function on the next charges of the call, and returns what pcall returns.
local function with_charges(run)
  local number, time = string.match(ARGV[arguments_read + 1], '^(%d+) (.*)$')
  local key_offset, argument_offset = keys_read, arguments_read + 1
  keys_read, arguments_read = key_offset + number, argument_offset + number
  return pcall(function()
    now, charges, states = tonumber(time) or server_time(), {}, {}
    for at = 1, number do
      local key = KEYS[key_offset + at]
      local strategy, amount, window, units, enforced =
        string.match(ARGV[argument_offset + at], '^(%l) (%d+) (%d+) (%-?%d+) (%d)$')
      local charge = {
        key = key,
        counting = STRATEGIES[strategy],
        amount = tonumber(amount),
        window = tonumber(window),
        units = tonumber(units),
        enforced = enforced == '1',
      }
      charges[at] = charge
      if not states[key] then
        states[key] = charge.counting.load(key, charge.window)
      end
    end
    return run()
  end)
end

local function take(charge)
  local state = states[charge.key]
  if charge.counting.fits(state, charge.amount, charge.window, charge.units) then
    charge.counting.add(state, charge.units)
    charge.changed = true
    return true
  end
  return false
end

local function save()
  local saved = {}
  for _, charge in ipairs(charges) do
    if charge.changed and not saved[charge.key] then
      saved[charge.key] = true
      charge.counting.save(states[charge.key], charge.key, charge.window)
    end
  end
end

local function row(charge, fits, cost)
  local state = states[charge.key]
  local remaining, reset, ends = charge.counting.tally(state, charge.amount, charge.window)
  local wait = 0
  if not fits then
    wait = charge.window
    if cost <= charge.amount then
      wait = charge.counting.wait(state, charge.amount, charge.window, cost)
    end
  end
  return string.format(
    '%d %.0f %.0f %.0f %.0f',
    fits and 1 or 0,
    math.max(0, remaining),
    math.ceil(reset * 1000000 - 0.001),
    math.ceil(wait * 1000000),
    ends * 1000000
  )
end

local function reply(admitted, rows)
  return (admitted and '1 ' or '0 ') .. table.concat(rows, ' ')
end
