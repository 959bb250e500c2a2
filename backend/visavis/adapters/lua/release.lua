-- Give a pool's round lease back if it is still one's own. ARGV: pool, token.
local key = P .. 'round:' .. ARGV[1]
if redis.call('GET', key) == ARGV[2] then
  redis.call('DEL', key)
end
return 1
