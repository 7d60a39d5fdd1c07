-- Tells whether one of several records still has its version; each is a key and a version.
local function is_witnessed(witnesses)
  for _, witness in ipairs(witnesses) do
    if redis.call('HGET', STORE .. witness[1], 'version') == witness[2] then
      return true
    end
  end
  return #witnesses == 0
end
