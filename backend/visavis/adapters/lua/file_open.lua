-- What a guest may see of a file. ARGV: file, guest, conversation, the worker's time.
-- Returns false unless it is ready, has not expired, and the guest is a member who has not gone from the conversation.
local file, guest, conversation, time = unpack(ARGV)
local found = redis.call('HMGET', P .. 'file:' .. file, 'phase', 'conversation', 'expires_at', 'shared')
if found[1] ~= 'ready' or found[2] ~= conversation or tonumber(found[3]) <= tonumber(time) then
  return false
end
local talk = redis.call('HMGET', P .. 'conversation:' .. conversation, 'members', 'gone')
if not is_member(talk[1], guest) or is_member(talk[2], guest) then
  return false
end
return found[4]
