-- From now on there is no such file. ARGV: file, its owner ('' for: if it is due), the worker's time.
-- Returns false if it stays, 'check' if it waits for its check, 'held' if its bytes wait for a report that may come,
-- else the names of its parts.
-- Until somebody looks after a check anew.
local CHECK_AGAIN_MS = 15000
local file, owner, time = ARGV[1], ARGV[2], tonumber(ARGV[3])
local key = P .. 'file:' .. file
local due = tonumber(redis.call('ZSCORE', P .. 'files', file) or 'inf')
local found = redis.call('HMGET', key, 'guest', 'bytes', 'conversation', 'phase', 'parts', 'expires_at')
if owner == '' then
  if due > time then
    return false
  end
  if found[4] == 'checking' and time < tonumber(found[6]) then
    redis.call('ZADD', P .. 'files', 'XX', time + CHECK_AGAIN_MS, file)
    return 'check'
  end
elseif found[1] ~= owner then
  return false
end
if found[1] then
  redis.call('HSET', key, 'phase', 'gone')
  redis.call('ZREM', P .. 'files_of:' .. found[1], file .. ':' .. found[2])
  redis.call('SREM', P .. 'files_in:' .. found[3], file)
  if owner ~= '' and (found[4] == 'ready' or (found[4] == 'gone' and due > time)) then
    if found[4] == 'ready' then
      redis.call('ZADD', P .. 'files', math.min(time + CONVERSATION_KEPT_MS, tonumber(found[6])), file)
    end
    return 'held'
  end
  redis.call('ZADD', P .. 'files', 0, file)
end
return found[5] or ''
