-- Renew a recorder's lease. ARGV: recorder, lease ms, places, its load, then each recording it makes.
-- Returns those of them that have no place here any more.
local UNHEARD_MS, MADE_KEPT_MS = 30000, 86400000
local recorder, ttl, places, load = unpack(ARGV, 1, 4)
local time = now()
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', P .. 'recorders', '-inf', time)) do
  redis.call('ZREM', P .. 'recorders', dead)
end
redis.call('ZADD', P .. 'recorders', time + ttl, recorder)
redis.call('HSET', P .. 'recorder:' .. recorder, 'places', places, 'load', load)
redis.call('PEXPIRE', P .. 'recorder:' .. recorder, ttl)

local made = P .. 'made:' .. recorder
-- Without its mark the whole hash is lost, and with it who had a place: not that somebody took one back.
local lost = redis.call('HSETNX', made, '', time) == 1
redis.call('PEXPIRE', made, MADE_KEPT_MS)
local withdrawn, running = {}, {}
for i = 5, #ARGV do
  running[ARGV[i]] = true
  if redis.call('HEXISTS', made, ARGV[i]) == 0 then
    if lost then
      redis.call('HSET', made, ARGV[i], time)
    else
      withdrawn[#withdrawn + 1] = ARGV[i]
    end
  end
end
-- A place given away whose beginning was never heard of.
local found = redis.call('HGETALL', made)
for i = 1, #found, 2 do
  if found[i] ~= '' and not running[found[i]] and time - tonumber(found[i + 1]) > UNHEARD_MS then
    redis.call('HDEL', made, found[i])
  end
end
return withdrawn
