-- Count against a limit. ARGV: key, limit, window ms. Returns 0 if allowed, else ms until the window ends.
local key = P .. 'limit:' .. ARGV[1]
local count = redis.call('INCR', key)
if count == 1 then
  redis.call('PEXPIRE', key, ARGV[3])
end
if count <= tonumber(ARGV[2]) then
  return 0
end
return math.max(1, redis.call('PTTL', key))
