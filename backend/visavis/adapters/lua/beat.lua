-- Renew a worker's lease. ARGV: worker, lease ms, its statistics ('' in all cells but one).
-- Returns 1 if the lease had run out, workers found dead, and everyone's statistics.
local worker, ttl, stats = unpack(ARGV)
local time = now()
local known = redis.call('ZSCORE', P .. 'workers', worker)
redis.call('SET', P .. 'worker:' .. worker, '1', 'PX', ttl)
redis.call('ZADD', P .. 'workers', time + ttl, worker)
if stats ~= '' then
  redis.call('HSET', P .. 'stats', worker, stats)
end
local dead = redis.call('ZRANGEBYSCORE', P .. 'workers', '-inf', time)
for _, one in ipairs(dead) do
  redis.call('ZREM', P .. 'workers', one)
  redis.call('HDEL', P .. 'stats', one)
end
return { known and 0 or 1, dead, redis.call('HGETALL', P .. 'stats') }
