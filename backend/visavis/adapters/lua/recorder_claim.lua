-- A place for a recording at the least busy recorder. ARGV: recording.
-- Returns the recorder, '' if all are full, false if there is none.
local recording = ARGV[1]
local best, fewest, living
for _, recorder in ipairs(redis.call('ZRANGEBYSCORE', P .. 'recorders', '(' .. now(), '+inf')) do
  local places = tonumber(redis.call('HGET', P .. 'recorder:' .. recorder, 'places') or 0)
  local made = P .. 'made:' .. recorder
  if redis.call('HEXISTS', made, recording) == 1 then
    return recorder
  end
  living = true
  -- One field is the recorder's own mark.
  local taken = redis.call('HLEN', made) - redis.call('HEXISTS', made, '')
  if taken < places and (not fewest or taken < fewest) then
    best, fewest = recorder, taken
  end
end
if best then
  redis.call('HSET', P .. 'made:' .. best, recording, now())
  return best
end
return living and '' or false
