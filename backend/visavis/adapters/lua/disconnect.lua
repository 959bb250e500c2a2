-- A connection is gone. ARGV: guest, worker, epoch. Returns false if a newer one took over, else places.
local guest, worker, epoch = unpack(ARGV)
local found = redis.call('HMGET', P .. 'guest:' .. guest, 'epoch', 'worker')
if found[1] ~= epoch or found[2] ~= worker then
  return false
end
redis.call('SREM', P .. 'at:' .. worker, guest)
local _, places = mark_away(guest)
return places
