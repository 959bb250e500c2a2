-- Count in windows that slide. KEYS: hashes, each a sixteenth of its window by what was counted in it. ARGV, for each:
-- cost, the most in any window, window ms, how: 'take' counts if all that is to be taken fits; 'add' counts; 'back'
-- undoes a 'take'.
-- Returns for each: ms until so much fits (after 'add': until anything does), or 0, and what is left.
local SLOTS = 16
local time = now()

local function look(n)
  local key, cost, most, window, how = KEYS[n], unpack(ARGV, 4 * n - 3, 4 * n)
  local width = window / SLOTS
  local one = {
    key = key, cost = tonumber(cost), most = tonumber(most), window = tonumber(window), how = how,
    width = width, slot = math.floor(time / width), sum = 0, slots = {},
  }
  local found = redis.call('HGETALL', key)
  for i = 1, #found, 2 do
    local at, counted = tonumber(found[i]), tonumber(found[i + 1])
    -- One more than a window has, as it begins within the oldest. One of the future is of a clock that was set back.
    if at < one.slot - SLOTS or at > one.slot then
      redis.call('HDEL', key, found[i])
    else
      one.sum = one.sum + counted
      one.slots[#one.slots + 1] = { at, counted }
    end
  end
  table.sort(one.slots, function(early, late)
    return early[1] < late[1]
  end)
  return one
end

local function undo(one)
  local cost, slots = one.cost, one.slots
  for i = #slots, 1, -1 do
    local some = math.min(cost, slots[i][2])
    redis.call('HINCRBY', one.key, string.format('%.0f', slots[i][1]), -some)
    cost, one.sum = cost - some, one.sum - some
  end
end

local function add(one)
  local slots = one.slots
  redis.call('HINCRBY', one.key, string.format('%.0f', one.slot), string.format('%.0f', one.cost))
  redis.call('PEXPIRE', one.key, math.ceil(one.window + one.width))
  if #slots == 0 or slots[#slots][1] < one.slot then
    slots[#slots + 1] = { one.slot, 0 }
  end
  slots[#slots][2] = slots[#slots][2] + one.cost
  one.sum = one.sum + one.cost
end

local function wait(one, over)
  if over <= 0 then
    return 0
  end
  for _, slot in ipairs(one.slots) do
    over = over - slot[2]
    if over <= 0 then
      return math.max(1, math.ceil((slot[1] + SLOTS + 1) * one.width - time))
    end
  end
  -- More than there can ever be.
  return math.ceil(one.window + one.width)
end

local asked, fits = {}, true
for n = 1, #KEYS do
  asked[n] = look(n)
  fits = fits and (asked[n].how ~= 'take' or asked[n].sum + asked[n].cost <= asked[n].most)
end
local answers = {}
for _, one in ipairs(asked) do
  -- By how much it is over, before what is taken was counted.
  local over = one.how == 'take' and one.sum + one.cost - one.most or 0
  if one.how == 'back' then
    undo(one)
  elseif one.cost > 0 and (one.how == 'add' or fits) then
    add(one)
  end
  if one.how == 'add' then
    over = one.sum + 1 - one.most
  end
  answers[#answers + 1] = wait(one, over)
  answers[#answers + 1] = math.max(0, one.most - one.sum)
end
return answers
