-- A guest's newest connection. ARGV: guest, worker, lease ms, session ms, claimed conversation
-- ('' for none), its members, its record. Returns epoch, worker of the connection before, record ('' for none), places,
-- the version of its call (-1 for none) and its state ('' if nothing has happened to it).
local guest, worker, lease, ttl, claimed, claimed_members, claimed_record = unpack(ARGV)
lives(worker, lease)
local key = P .. 'guest:' .. guest
local before = redis.call('HGET', key, 'worker') or ''
-- By the clock, so that a Redis that forgot everything does not give out an epoch for the second time.
local t = redis.call('TIME')
local epoch = math.max(t[1] * 1000000 + t[2], tonumber(redis.call('HGET', key, 'epoch') or 0) + 1)
redis.call('HSET', key, 'epoch', epoch)
if before ~= '' and before ~= worker then
  redis.call('SREM', P .. 'at:' .. before, guest)
end
redis.call('HSET', key, 'worker', worker)
redis.call('HDEL', key, 'away')
redis.call('PEXPIRE', key, ttl)
redis.call('SADD', P .. 'at:' .. worker, guest)
redis.call('PEXPIRE', P .. 'at:' .. worker, ttl)
drop_ticket(guest)

local conversation = conversation_of(guest)
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
  return { epoch, before, '', {}, -1, '' }
end
local conversation_key = P .. 'conversation:' .. conversation
redis.call('PEXPIRE', conversation_key, ttl)
local found = redis.call('HMGET', conversation_key, 'record', 'call_version', 'call')
local version = tonumber(found[2] or -1)
return { epoch, before, found[1], places_in(conversation, guest), version, found[3] or '' }
