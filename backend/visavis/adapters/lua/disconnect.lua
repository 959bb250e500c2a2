-- Connections are gone. ARGV: worker, then guest, epoch, guest, epoch... Epoch 0 is whichever this worker has last: it never
-- heard which. Returns for each false if a newer one took over, else places.
local worker = ARGV[1]
local answers = {}
for i = 2, #ARGV, 2 do
  local guest, epoch = ARGV[i], ARGV[i + 1]
  local found = redis.call('HMGET', P .. 'guest:' .. guest, 'epoch', 'worker')
  local places = false
  if found[2] == worker and (epoch == '0' or found[1] == epoch) then
    redis.call('SREM', P .. 'at:' .. worker, guest)
    places = select(2, mark_away(guest))
  end
  answers[#answers + 1] = places
end
return answers
