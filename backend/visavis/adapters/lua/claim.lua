-- Seat pairs whose tickets both still wait. ARGV: conversation ms, recent ms, pool, then for each pair:
-- conversation, record, guest, ticket, guest, ticket. Returns for each: false, or both workers.
local ttl, recent, pool = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local time = now()
local answers = {}

local function waits(guest, ticket)
  local found = redis.call('HMGET', P .. 'guest:' .. guest, 'ticket', 'conversation', 'pool')
  if found[3] ~= pool then
    -- Left behind by a session that ran out: it would be proposed for ever.
    redis.call('ZREM', P .. 'waiting:' .. pool, guest)
    redis.call('HDEL', P .. 'tickets:' .. pool, guest)
    return false
  end
  if found[1] ~= ticket or (found[2] and found[2] ~= '') then
    return false
  end
  local place = location(guest)
  if place == '' then
    drop_ticket(guest)
    return false
  end
  return place
end

for i = 4, #ARGV, 6 do
  local id, record, a, ticket_a, b, ticket_b = unpack(ARGV, i, i + 5)
  local place_a, place_b = waits(a, ticket_a), waits(b, ticket_b)
  if a ~= b and place_a and place_b then
    local members = a .. ' ' .. b
    redis.call('HSET', P .. 'conversation:' .. id, 'state', 'live', 'members', members, 'record', record,
      'call_version', 0)
    redis.call('PEXPIRE', P .. 'conversation:' .. id, ttl)
    for one, other in pairs({ [a] = b, [b] = a }) do
      drop_ticket(one)
      local stays = redis.call('HGET', P .. 'guest:' .. one, 'stays')
      if stays then
        go_from(stays, one)
        redis.call('HDEL', P .. 'guest:' .. one, 'stays')
      end
      redis.call('HSET', P .. 'guest:' .. one, 'conversation', id)
      if recent > 0 then
        local met = P .. 'met:' .. one
        redis.call('ZREMRANGEBYSCORE', met, '-inf', time - recent)
        redis.call('ZADD', met, time, other)
        redis.call('PEXPIRE', met, recent)
      end
    end
    answers[#answers + 1] = { place_a, place_b }
  else
    answers[#answers + 1] = false
  end
end
return answers
