-- Renew sessions and report. ARGV: worker, lease ms, session ms, then guest, epoch, guest, epoch...
-- Returns for each: state, conversation, searching (0 or 1), places, version of its call (-1 for none).
local worker, lease, ttl = unpack(ARGV, 1, 3)
lives(worker, lease)
local answers = {}
for i = 4, #ARGV, 2 do
  local guest, epoch = ARGV[i], ARGV[i + 1]
  local key = P .. 'guest:' .. guest
  local found = redis.call('HMGET', key, 'epoch', 'worker', 'ticket')
  local state = 'ok'
  if not found[1] then
    state = 'missing'
  elseif found[1] ~= epoch then
    -- A worker asks for its newest connection only: an epoch it does not know, but gave itself, is one whose answer it
    -- never got.
    state = found[2] == worker and 'missing' or 'replaced'
  elseif found[2] ~= worker then
    state = 'back'
    redis.call('HSET', key, 'worker', worker)
    redis.call('HDEL', key, 'away')
    redis.call('SADD', P .. 'at:' .. worker, guest)
  end
  if state == 'ok' or state == 'back' then
    redis.call('PEXPIRE', key, ttl)
    local conversation = conversation_of(guest)
    local places, call = {}, -1
    if conversation ~= '' then
      redis.call('PEXPIRE', P .. 'conversation:' .. conversation, ttl)
      places = places_in(conversation, guest)
      call = tonumber(redis.call('HGET', P .. 'conversation:' .. conversation, 'call_version') or -1)
    end
    answers[#answers + 1] = { state, conversation, found[3] and 1 or 0, places, call }
  else
    answers[#answers + 1] = { state, '', 0, {}, -1 }
  end
end
redis.call('PEXPIRE', P .. 'at:' .. worker, ttl)
return answers
