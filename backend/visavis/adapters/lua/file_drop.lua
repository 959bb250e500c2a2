-- From now on there is no such file. ARGV: file, its owner ('' for: if it is due), the worker's time.
-- Returns false if it stays, 'check' if it waits for its check, else the names of its parts.
local file, owner, time = ARGV[1], ARGV[2], tonumber(ARGV[3])
local key = P .. 'file:' .. file
local due = tonumber(redis.call('ZSCORE', P .. 'files', file) or 'inf')
local found = redis.call('HMGET', key, 'guest', 'bytes', 'conversation', 'phase', 'parts', 'expires_at')
if owner == '' then
  if due > time then
    return false
  end
  if found[4] == 'checking' and time < tonumber(found[6]) then
    return 'check'
  end
elseif found[1] ~= owner or found[4] == 'gone' then
  return false
end
if found[1] then
  redis.call('HSET', key, 'phase', 'gone')
  redis.call('ZADD', P .. 'files', 0, file)
  redis.call('ZREM', P .. 'files_of:' .. found[1], file .. ':' .. found[2])
  redis.call('SREM', P .. 'files_in:' .. found[3], file)
end
return found[5] or ''
