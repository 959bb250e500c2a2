-- A check is over. ARGV: file, token, phase, problem, limit, what members see, when the file is due next.
-- The phase 'checking' gives the check back, for somebody to begin anew.
-- Returns 'ok'; 'lost' if another worker has taken it on; 'gone' if there is no such file any more.
local file, token, phase, problem, limit, shared, due = unpack(ARGV)
local key = P .. 'file:' .. file
local held = P .. 'checking:' .. file
local found = redis.call('HMGET', key, 'phase', 'guest', 'bytes', 'checked_by')
if found[4] == token then
  -- Asked again: the answer was lost on the way.
  return 'ok'
end
if found[1] ~= 'checking' then
  return (found[1] and found[1] ~= 'gone') and 'lost' or 'gone'
end
if redis.call('GET', held) ~= token then
  return 'lost'
end
redis.call('DEL', held)
if phase == 'checking' then
  redis.call('HINCRBY', key, 'tries', -1)
  return 'ok'
end
redis.call('HSET', key, 'phase', phase, 'problem', problem, 'limit', limit, 'shared', shared,
  'checked_by', token)
redis.call('HDEL', key, 'parts')
redis.call('ZADD', P .. 'files', 'XX', due, file)
if phase == 'refused' then
  redis.call('ZREM', P .. 'files_of:' .. found[2], file .. ':' .. found[3])
end
return 'ok'
