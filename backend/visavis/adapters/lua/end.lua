-- End a conversation. ARGV: conversation, by whom, ms that member must have been away ('' for any), the members and
-- record to end it with if it was lost ('' for: then there is nothing to end), and who goes from it for good ('' for
-- nobody, 'by', 'all'), also if it had ended before.
-- Returns false if it did not end now, else the other members' places.
local id, by, away_for, lost_members, lost_record, goes = unpack(ARGV)
local key = P .. 'conversation:' .. id
local found = redis.call('HMGET', key, 'state', 'members')
if not found[1] and lost_members ~= '' then
  redis.call('HSET', key, 'state', 'live', 'members', lost_members, 'record', lost_record)
  found = { 'live', lost_members }
end
if not is_member(found[2], by) then
  return false
end
local function go()
  for guest in string.gmatch(found[2], '%S+') do
    if goes == 'all' or (goes == 'by' and guest == by) then
      go_from(id, guest)
    end
  end
end
if found[1] ~= 'live' then
  go()
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
-- As long as there are files, who may have them must be known.
local files_until = tonumber(redis.call('HGET', key, 'files_until') or 0)
redis.call('PEXPIRE', key, math.max(CONVERSATION_KEPT_MS, files_until - now()))
go()
local gone = redis.call('HGET', key, 'gone') or ''
for guest in string.gmatch(found[2], '%S+') do
  local guest_key = P .. 'guest:' .. guest
  if redis.call('HGET', guest_key, 'conversation') == id then
    redis.call('HDEL', guest_key, 'conversation')
    if not is_member(gone, guest) then
      redis.call('HSET', guest_key, 'stays', id)
    end
  end
end
return places
