-- A guest's newest connection. ARGV: guest, worker, lease ms, session ms, claimed conversation
-- ('' for none), its members, its record. Returns epoch, worker of the connection before, record ('' for none), places,
-- the version of its call (-1 for none), its state ('' if nothing has happened to it), and whether the guest has spent
-- anything of late (0 or 1).
local guest, worker, lease, ttl, claimed, claimed_members, claimed_record = unpack(ARGV)
lives(worker, lease)
local key = P .. 'guest:' .. guest
local known = redis.call('HMGET', key, 'worker', 'epoch', 'away', 'pool', 'conversation')
local before = known[1] or ''
-- By the clock, so that a Redis that forgot everything does not give out an epoch for the second time.
local t = redis.call('TIME')
local epoch = math.max(t[1] * 1000000 + t[2], tonumber(known[2] or 0) + 1)
redis.call('HSET', key, 'epoch', epoch, 'worker', worker)
if before ~= '' and before ~= worker then
  redis.call('SREM', P .. 'at:' .. before, guest)
end
if known[3] then
  redis.call('HDEL', key, 'away')
end
redis.call('PEXPIRE', key, ttl)
redis.call('SADD', P .. 'at:' .. worker, guest)
redis.call('PEXPIRE', P .. 'at:' .. worker, ttl)
if known[4] then
  drop_ticket(guest)
end
local spent = redis.call('EXISTS', P .. 'limit:requests:guest:' .. guest)

local conversation = known[5] and conversation_of(guest) or ''
if conversation == '' and claimed ~= '' then
  local claimed_key = P .. 'conversation:' .. claimed
  local state = redis.call('HGET', claimed_key, 'state')
  if not state then
    redis.call('HSET', claimed_key, 'state', 'live', 'members', claimed_members, 'record', claimed_record)
    state = 'live'
  end
  if state == 'live' and is_member(redis.call('HGET', claimed_key, 'members'), guest) then
    redis.call('HSET', key, 'conversation', claimed)
    conversation = claimed
  end
end
if conversation == '' then
  return { epoch, before, '', {}, -1, '', spent }
end
local conversation_key = P .. 'conversation:' .. conversation
redis.call('PEXPIRE', conversation_key, ttl)
local found = redis.call('HMGET', conversation_key, 'record', 'call_version', 'call')
local version = tonumber(found[2] or -1)
return { epoch, before, found[1], places_in(conversation, guest), version, found[3] or '', spent }
