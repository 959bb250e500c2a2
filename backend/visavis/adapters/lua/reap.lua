-- Mark some guests of a dead worker away. ARGV: worker, how many at most.
-- Returns how many are left, and for each seated guest: guest, conversation, places.
local worker, count = ARGV[1], ARGV[2]
local key = P .. 'at:' .. worker
local answers = {}
for _, guest in ipairs(redis.call('SPOP', key, count)) do
  if redis.call('HGET', P .. 'guest:' .. guest, 'worker') == worker then
    local conversation, places = mark_away(guest)
    if conversation ~= '' then
      answers[#answers + 1] = { guest, conversation, places }
    end
  end
end
return { redis.call('SCARD', key), answers }
