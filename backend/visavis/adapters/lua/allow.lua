-- Count against a limit, whose only key is KEYS[1]. ARGV: limit, window ms.
-- Returns 0 if allowed, else ms until the window ends.
local key = KEYS[1]
local count = redis.call('INCR', key)
if count == 1 then
  redis.call('PEXPIRE', key, ARGV[2])
end
if count <= tonumber(ARGV[1]) then
  return 0
end
return math.max(1, redis.call('PTTL', key))
