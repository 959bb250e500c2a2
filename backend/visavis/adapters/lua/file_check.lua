-- Take on the check of a file, or go on with it. ARGV: file, token, lease ms.
-- Returns 0 if it is not there to check or somebody else does; else how many have taken it on.
local file, token, lease = unpack(ARGV)
local key = P .. 'file:' .. file
local held = P .. 'checking:' .. file
if redis.call('HGET', key, 'phase') ~= 'checking' then
  return 0
end
local holder = redis.call('GET', held)
if holder and holder ~= token then
  return 0
end
redis.call('SET', held, token, 'PX', lease)
if holder then
  return tonumber(redis.call('HGET', key, 'tries'))
end
return redis.call('HINCRBY', key, 'tries', 1)
