-- The oldest tickets of a pool. ARGV: pool, how many at most. Returns time, then guest, since, ticket...
local pool, count = ARGV[1], tonumber(ARGV[2])
local found = redis.call('ZRANGE', P .. 'waiting:' .. pool, 0, count - 1, 'WITHSCORES')
local answer = { now() }
for i = 1, #found, 2 do
  answer[#answer + 1] = found[i]
  answer[#answer + 1] = found[i + 1]
  answer[#answer + 1] = redis.call('HGET', P .. 'tickets:' .. pool, found[i]) or ''
end
return answer
