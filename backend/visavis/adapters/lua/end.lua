-- End a conversation. ARGV: conversation, by whom, ms that member must have been away ('' for any), and the
-- members and record to end it with if it was lost ('' for: then there is nothing to end).
-- Returns false if it did not end now, else the other members' places.
local id, by, away_for, lost_members, lost_record = unpack(ARGV)
local key = P .. 'conversation:' .. id
local found = redis.call('HMGET', key, 'state', 'members')
if not found[1] and lost_members ~= '' then
  redis.call('HSET', key, 'state', 'live', 'members', lost_members, 'record', lost_record)
  found = { 'live', lost_members }
end
if found[1] ~= 'live' or not is_member(found[2], by) then
  return false
end
if away_for ~= '' and place_in(id, by) ~= '' then
  return false
end
-- Who is connected without this seat has gone elsewhere, and is not waited for.
if away_for ~= '' and location(by) == '' then
  local guest_key = P .. 'guest:' .. by
  local away = redis.call('HGET', guest_key, 'away')
  if not away then
    -- Redis has not seen this guest since it lost everything: the time begins now.
    redis.call('HSET', guest_key, 'away', now())
    redis.call('PEXPIRE', guest_key, CONVERSATION_KEPT_MS)
    return false
  end
  if now() - tonumber(away) < tonumber(away_for) then
    return false
  end
end
local places = places_in(id, by)
redis.call('HSET', key, 'state', 'ended')
redis.call('PEXPIRE', key, CONVERSATION_KEPT_MS)
for guest in string.gmatch(found[2], '%S+') do
  if redis.call('HGET', P .. 'guest:' .. guest, 'conversation') == id then
    redis.call('HDEL', P .. 'guest:' .. guest, 'conversation')
  end
end
return places
