-- Returns whether a witness still has its version, or none was named. A witness is a key and a version.
local function is_witnessed(witnesses)
  for _, witness in ipairs(witnesses) do
    if redis.call('HGET', STORE .. witness[1], 'version') == witness[2] then
      return true
    end
  end
  return #witnesses == 0
end
