-- Count in a window that slides. KEYS[1]: a hash, sixteenth of the window by what was counted in it. ARGV: cost, the most
-- in any window, window ms, how: 'take' counts if it fits; 'add' counts; 'back' undoes a 'take'.
-- Returns ms until so much fits (after 'add': until anything does), or 0, and what is left.
local SLOTS = 16
local key, cost, most, window, how = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local width = window / SLOTS
local time = now()
local slot = math.floor(time / width)
local sum, slots = 0, {}
local found = redis.call('HGETALL', key)
for i = 1, #found, 2 do
  local at, counted = tonumber(found[i]), tonumber(found[i + 1])
  -- One more than a window has, as it begins within the oldest. One of the future is of a clock that was set back.
  if at < slot - SLOTS or at > slot then
    redis.call('HDEL', key, found[i])
  else
    sum = sum + counted
    slots[#slots + 1] = { at, counted }
  end
end
table.sort(slots, function(one, other)
  return one[1] < other[1]
end)
if how == 'back' then
  for i = #slots, 1, -1 do
    local some = math.min(cost, slots[i][2])
    redis.call('HINCRBY', key, string.format('%.0f', slots[i][1]), -some)
    cost, sum = cost - some, sum - some
  end
  return { 0, math.max(0, most - sum) }
end
local over = sum + cost - most
if how == 'add' or over <= 0 then
  if cost > 0 then
    redis.call('HINCRBY', key, string.format('%.0f', slot), string.format('%.0f', cost))
    redis.call('PEXPIRE', key, math.ceil(window + width))
    if #slots == 0 or slots[#slots][1] < slot then
      slots[#slots + 1] = { slot, 0 }
    end
    slots[#slots][2] = slots[#slots][2] + cost
    sum = sum + cost
  end
  over = how == 'add' and sum + 1 - most or 0
end
if over <= 0 then
  return { 0, most - sum }
end
for _, one in ipairs(slots) do
  over = over - one[2]
  if over <= 0 then
    return { math.max(1, math.ceil((one[1] + SLOTS + 1) * width - time)), math.max(0, most - sum) }
  end
end
-- More than there can ever be.
return { math.ceil(window + width), math.max(0, most - sum) }
