-- Begin to wait. ARGV: guest, worker, lease ms, epoch, pool, ticket id, ticket. Returns {outcome, since}.
local guest, worker, lease, epoch, pool, ticket, packed = unpack(ARGV)
lives(worker, lease)
local key = P .. 'guest:' .. guest
local found = redis.call('HMGET', key, 'worker', 'pool', 'epoch')
if not found[3] then
  return { 'missing', 0 }
end
if found[1] ~= worker or found[3] ~= epoch then
  return { 'replaced', 0 }
end
if conversation_of(guest) ~= '' then
  return { 'in_conversation', 0 }
end
local since = now()
if found[2] == pool then
  since = tonumber(redis.call('ZSCORE', P .. 'waiting:' .. pool, guest) or since)
else
  drop_ticket(guest)
end
redis.call('ZADD', P .. 'waiting:' .. pool, since, guest)
redis.call('HSET', P .. 'tickets:' .. pool, guest, packed)
redis.call('HSET', key, 'pool', pool, 'ticket', ticket)
return { 'ok', since }
