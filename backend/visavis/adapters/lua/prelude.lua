-- Shared by every script; put in front of each when it is loaded. Time is Redis's own.
-- What all keys of a script begin with; with its hash tag, they are all on the server that the script was sent to.
local P = KEYS[1]
local CONVERSATION_KEPT_MS = 3600000

local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- A worker that asks for something lives, also when Redis has lost its lease and the next beat is to come.
local function lives(worker, lease)
  redis.call('SET', P .. 'worker:' .. worker, '1', 'NX', 'PX', lease)
end

-- The worker a guest is connected to; '' when away, or when that worker's lease has run out.
local function location(guest)
  local worker = redis.call('HGET', P .. 'guest:' .. guest, 'worker')
  if not worker or worker == '' or redis.call('EXISTS', P .. 'worker:' .. worker) == 0 then
    return ''
  end
  return worker
end

-- Where a member is for a conversation; '' as well while the guest has no seat in it: a claim may have
-- brought back a conversation whose other member has gone elsewhere, or not come back yet.
local function place_in(conversation, guest)
  if redis.call('HGET', P .. 'guest:' .. guest, 'conversation') ~= conversation then
    return ''
  end
  return location(guest)
end

-- Flat list: guest, worker, guest, worker... of a conversation's members but one.
local function places_in(conversation, except)
  local found = {}
  local members = redis.call('HGET', P .. 'conversation:' .. conversation, 'members')
  for guest in string.gmatch(members or '', '%S+') do
    if guest ~= except then
      found[#found + 1] = guest
      found[#found + 1] = place_in(conversation, guest)
    end
  end
  return found
end

local function drop_ticket(guest)
  local key = P .. 'guest:' .. guest
  local pool = redis.call('HGET', key, 'pool')
  if pool and pool ~= '' then
    redis.call('ZREM', P .. 'waiting:' .. pool, guest)
    redis.call('HDEL', P .. 'tickets:' .. pool, guest)
    redis.call('HDEL', key, 'pool', 'ticket')
  end
end

-- The guest's live conversation, or ''.
local function conversation_of(guest)
  local id = redis.call('HGET', P .. 'guest:' .. guest, 'conversation')
  if not id or id == '' then
    return ''
  end
  if redis.call('HGET', P .. 'conversation:' .. id, 'state') ~= 'live' then
    redis.call('HDEL', P .. 'guest:' .. guest, 'conversation')
    return ''
  end
  return id
end

local function is_member(members, guest)
  for one in string.gmatch(members or '', '%S+') do
    if one == guest then
      return true
    end
  end
  return false
end

-- A guest goes from a conversation for good: its files are not for that guest any more. Once nobody is left they are
-- for nobody, and due; those that were shared only when no report can name them any more.
local function go_from(conversation, guest)
  local key = P .. 'conversation:' .. conversation
  local found = redis.call('HMGET', key, 'members', 'gone')
  local gone = found[2] or ''
  if not is_member(found[1], guest) or is_member(gone, guest) then
    return
  end
  gone = gone .. guest .. ' '
  redis.call('HSET', key, 'gone', gone)
  for one in string.gmatch(found[1], '%S+') do
    if not is_member(gone, one) then
      return
    end
  end
  for _, file in ipairs(redis.call('SMEMBERS', P .. 'files_in:' .. conversation)) do
    local shared = redis.call('HMGET', P .. 'file:' .. file, 'phase', 'expires_at')
    local due = 0
    if shared[1] then
      redis.call('HSET', P .. 'file:' .. file, 'phase', 'gone')
      if shared[1] == 'ready' then
        due = math.min(now() + CONVERSATION_KEPT_MS, tonumber(shared[2]))
      end
    end
    redis.call('ZADD', P .. 'files', 'XX', due, file)
  end
end

-- Mark a guest away if it is still the same connection; returns its conversation and the others' places.
local function mark_away(guest)
  local key = P .. 'guest:' .. guest
  redis.call('HSET', key, 'worker', '', 'away', now())
  drop_ticket(guest)
  local conversation = conversation_of(guest)
  if conversation == '' then
    return '', {}
  end
  return conversation, places_in(conversation, guest)
end
