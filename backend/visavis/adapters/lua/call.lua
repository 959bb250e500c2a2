-- Put a call's next state in place. ARGV: conversation, version it follows, its own version, state.
-- A state that Redis has lost is followed by whatever a worker still knows. Returns 'ok'; 'over' or 'lost', as the
-- conversation is; or, if another state came first, that one ('' for the first of all).
local id, before, after, state = unpack(ARGV)
local key = P .. 'conversation:' .. id
local found = redis.call('HMGET', key, 'state', 'call_version', 'call')
if not found[1] then
  return 'lost'
end
if found[1] ~= 'live' then
  return 'over'
end
if found[2] and found[2] ~= before then
  return found[3] or ''
end
redis.call('HSET', key, 'call', state, 'call_version', after)
return 'ok'
