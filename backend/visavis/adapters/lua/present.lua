-- How many connections workers have from a place. KEYS[1]: a hash, worker by 'connections:until'. ARGV: worker, its
-- connections, ms for which that holds. Returns a flat list: worker, connections... of all others.
local key, worker, connections, kept = KEYS[1], ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local time, others = now(), {}
local found = redis.call('HGETALL', key)
for i = 1, #found, 2 do
  local count, till = string.match(found[i + 1], '^(%d+):(%d+)$')
  if tonumber(till) <= time then
    redis.call('HDEL', key, found[i])
  elseif found[i] ~= worker then
    others[#others + 1] = found[i]
    others[#others + 1] = tonumber(count)
  end
end
if connections > 0 then
  redis.call('HSET', key, worker, string.format('%.0f:%.0f', connections, time + kept))
  redis.call('PEXPIRE', key, kept)
else
  redis.call('HDEL', key, worker)
end
return others
