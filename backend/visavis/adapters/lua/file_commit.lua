-- Append a part that is stored. ARGV: file, offset it follows, its bytes, its name, the worker's time, when the upload
-- is given up next, when somebody should see to its check, parts at most.
-- Returns the offset that stands, and 1 if this part is in it, also when it is asked again; -1 if there is no such
-- upload any more, or if it came in so many small pieces that it has to begin anew.
local file, offset, more, part, time, given_up_at, check_at, most = unpack(ARGV)
local key = P .. 'file:' .. file
local found = redis.call('HMGET', key, 'phase', 'offset', 'bytes', 'parts', 'count', 'expires_at')
if not found[1] or found[1] == 'gone' or tonumber(found[6]) <= tonumber(time) then
  return { -1, 0 }
end
if string.find(found[4] or '', part .. ' ', 1, true) then
  return { tonumber(found[2]), 1 }
end
local after = tonumber(offset) + tonumber(more)
if found[1] ~= 'uploading' or tonumber(found[2]) ~= tonumber(offset) or after > tonumber(found[3]) then
  return { tonumber(found[2]), 0 }
end
if tonumber(found[5] or 0) >= tonumber(most) then
  return { -1, 0 }
end
redis.call('HSET', key, 'offset', after, 'parts', (found[4] or '') .. part .. ' ')
redis.call('HINCRBY', key, 'count', 1)
if after == tonumber(found[3]) then
  redis.call('HSET', key, 'phase', 'checking', 'since', time)
  redis.call('ZADD', P .. 'files', 'XX', check_at, file)
else
  redis.call('ZADD', P .. 'files', 'XX', given_up_at, file)
end
return { after, 1 }
