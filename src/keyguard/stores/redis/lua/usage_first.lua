-- Returns the hour of an organization's first quarter and the quarter within that hour, or nothing.
-- Before earlier quarters are added, the organization must be listed again. Dates without quarters
-- leave the index.
-- KEYS: folds, listed, index. ARGV: the beginning of the names of hashes.
local dates, first = redis.call('ZRANGE', KEYS[3], 0, -1), {}
note_change(KEYS[1], KEEP_DAYS)
for _, date in ipairs(dates) do
  if #date == 10 and #first == 0 then
    for hour = 0, 23 do
      local time = string.format('%sT%02d', date, hour)
      if #first == 0 and redis.call('EXISTS', ARGV[1] .. time) == 1 then
        local quarter = 0
        while quarter < 3 and redis.call('HEXISTS', ARGV[1] .. time, quarter) == 0 do
          quarter = quarter + 1
        end
        first = {time, quarter}
      end
    end
    if #first == 0 then
      redis.call('ZREM', KEYS[3], date)
    end
  end
end
redis.call('PEXPIRE', KEYS[2], 0)
return first
