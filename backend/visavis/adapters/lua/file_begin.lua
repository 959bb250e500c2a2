-- Begin an upload. ARGV: file, guest, conversation, name, bytes, voice (0 or 1), the worker's time, when the file expires
-- and when the upload is given up by that clock, uploads a minute, bytes of all the guest's files.
-- Returns 'ok' or why not, and ms until it may be tried again.
local file, guest, conversation, name, bytes, voice, time, expires_at, given_up_at, per_minute, together = unpack(ARGV)
local talk = P .. 'conversation:' .. conversation
local found = redis.call('HMGET', talk, 'state', 'members', 'files_until')
if found[1] ~= 'live' or not is_member(found[2], guest) then
  return { 'not_in_conversation', 0 }
end
if redis.call('EXISTS', P .. 'file:' .. file) == 1 then
  -- Asked again: the answer was lost on the way.
  return { 'ok', 0 }
end
local begun = P .. 'begun:' .. guest
local first = redis.call('LINDEX', begun, per_minute - 1)
if first and now() - tonumber(first) < 60000 then
  return { 'rate_limited', tonumber(first) + 60000 - now() }
end
local mine = P .. 'files_of:' .. guest
redis.call('ZREMRANGEBYSCORE', mine, '-inf', time)
local sum = tonumber(bytes)
for _, one in ipairs(redis.call('ZRANGE', mine, 0, -1)) do
  sum = sum + tonumber(string.match(one, ':(%d+)$'))
end
if sum > tonumber(together) then
  return { 'too_many_files', 0 }
end
local kept = expires_at - time
redis.call('LPUSH', begun, now())
redis.call('LTRIM', begun, 0, per_minute - 1)
redis.call('PEXPIRE', begun, 60000)
redis.call('ZADD', mine, expires_at, file .. ':' .. bytes)
redis.call('PEXPIRE', mine, kept)
redis.call('HSET', P .. 'file:' .. file, 'guest', guest, 'conversation', conversation, 'name', name, 'bytes', bytes,
  'voice', voice, 'expires_at', expires_at, 'phase', 'uploading', 'offset', 0)
redis.call('PEXPIRE', P .. 'file:' .. file, kept + CONVERSATION_KEPT_MS)
redis.call('SADD', P .. 'files_in:' .. conversation, file)
redis.call('PEXPIRE', P .. 'files_in:' .. conversation, kept + CONVERSATION_KEPT_MS)
redis.call('ZADD', P .. 'files', given_up_at, file)
redis.call('HSET', talk, 'files_until', math.max(tonumber(found[3] or 0), tonumber(expires_at)))
return { 'ok', 0 }
