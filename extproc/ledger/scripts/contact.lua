-- One replica says what it did with its leases, asks for what they do not cover, and gets new
-- ones. A message may come twice, late, or after one that was sent later: then it changes
-- nothing that is not so.

tidy(#ask.tells)

-- Which window each claim is about, by our own time. The replica says which there are.
local specs = {}
for i, spec in ipairs(ask.specs) do
  local budget, limit, spans = unpack(spec)
  for _, span in ipairs(spans) do
    if span[1] == 0 or (span[1] <= now and now < span[2]) then
      specs[i] = { budget = budget, limit = limit, start = span[1], stop = span[2] }
      break
    end
  end
  if not specs[i] then return finish({ is_clock_wrong = true }) end
end

local mine = redis.call('HGET', LEASES, ask.replica)
mine = mine and cmsgpack.unpack(mine) or { seq = 0, amounts = {} }
local is_stale = ask.seq <= mine.seq
local is_late = now > ask.valid_until
-- What the replica heard of these books that they don't know: they went back.
local is_old = ask.birth ~= 0 and now < ask.lasts and (birth ~= ask.birth or written < ask.written)
local seen = {}

-- What was made from leases, and is known from now on.
local last_due = redis.call('ZREVRANGE', DUE, 0, 0, 'WITHSCORES')[2]
last_due = last_due and tonumber(last_due) or 0

local function keep(id, parts, made)
  local due = math.min(made, now) + ask.reservation
  if due < last_due and made >= now then
    -- The clock stepped back: nothing is due after what comes last.
    local later = redis.call('ZRANGEBYSCORE', DUE, '(' .. whole(due), '+inf', 'LIMIT', 0, 1000)
    for _, other in ipairs(later) do redis.call('ZADD', DUE, whole(due), other) end
    last_due = due
  end
  last_due = math.max(last_due, due)
  redis.call('HSET', HELD, id, cmsgpack.pack({ parts = parts }))
  redis.call('ZADD', DUE, whole(due), id)
  is_dirty = true
end

for _, tell in ipairs(ask.tells) do
  local id, made, told = unpack(tell)
  if not known(id) then
    local parts = {}
    for i, part in ipairs(told) do
      local budget, start, stop, amount, expected = unpack(part)
      local account = open(budget, start, stop)
      if account then
        account.reserved = account.reserved + amount
        touch(account)
        parts[#parts + 1] = { account.field, amount, expected }
      end
    end
    keep(id, parts, made)
  end
end

for _, id in ipairs(ask.drops) do
  local held = known(id)
  if held and held ~= SETTLED and not held.is_expired then
    for _, part in ipairs(held.parts) do
      local account = account_of(part[1])
      if account then
        account.reserved = account.reserved - part[2]
        touch(account)
      end
    end
    redis.call('HDEL', HELD, id)
    redis.call('ZREM', DUE, id)
    is_dirty = true
  end
end

-- What it kept of its leases: never more than it had.
if not is_stale then
  for field, had in pairs(mine.amounts) do
    local account = account_of(field)
    local kept = math.min(ask.kept[field] or 0, had)
    if account and kept ~= had then
      account.leased = account.leased - had + kept
      touch(account)
    end
    mine.amounts[field] = kept > 0 and account and kept or nil
  end
end

local function refused(parts, is_final)
  local lacking, may_be_recalled = {}, not is_final
  for _, part in ipairs(parts) do
    local spec, account = part.spec, part.account
    local is_over_limit = used(account) > spec.limit
    if spec.limit <= 0
        or (part.amount > 0 and used(account) + account.leased > spec.limit) then
      lacking[#lacking + 1] = part
      if spec.limit <= 0 or is_over_limit then may_be_recalled = false end
    end
  end
  return lacking, may_be_recalled
end

local function add(parts, sign)
  for _, part in ipairs(parts) do
    part.account.reserved = part.account.reserved + sign * part.amount
  end
end

local function states(parts)
  local found = {}
  for i, part in ipairs(parts) do
    local account = part.account
    found[i] = { part.index, used(account), account.start, account.stop }
  end
  return found
end

local function answer_again(held, claims)
  if held == SETTLED or held.is_expired then return { 'over' } end
  local found = {}
  if #held.parts ~= #claims then return { 'other' } end
  for i, part in ipairs(held.parts) do
    local account, spec = account_of(part[1]), specs[claims[i][1]]
    if not account or part[2] ~= claims[i][2]
        or account.field ~= whole(account.start) .. ':' .. spec.budget then
      return { 'other' }
    end
    found[i] = { i, used(account), account.start, account.stop }
    seen[account.field] = account
  end
  return { 'reserved', found }
end

local function answer(id, claims, is_kept, is_final)
  local held = known(id)
  if held then return answer_again(held, claims) end
  if redis.call('ZCARD', DUE) >= ask.held_max then return { 'full' } end
  local parts = {}
  for i, claim in ipairs(claims) do
    local spec = specs[claim[1]]
    local account = open(spec.budget, spec.start, spec.stop)
    if not account then return { 'full' } end
    seen[account.field] = account
    parts[i] = { index = i, spec = spec, account = account, amount = claim[2], expected = claim[3] }
  end
  add(parts, 1)
  local lacking, may_be_recalled = refused(parts, is_final)
  if #lacking > 0 then
    add(parts, -1)
    local has_more = redis.call('ZRANGEBYSCORE', DUE, '-inf', whole(now), 'LIMIT', 0, 1)
    if has_more[1] then return { 'busy' } end
    if may_be_recalled and redis.call('ZCOUNT', LAPSE, whole(now + ask.reservation), '+inf') > 0 then
      for _, part in ipairs(lacking) do
        part.account.wanted = now + ask.recall
        touch(part.account)
      end
      return { 'recalled' }
    end
    return { 'denied', states(lacking) }
  end
  local found = states(parts)
  if not is_kept then
    add(parts, -1)
    return { 'reserved', found }
  end
  local kept = {}
  for i, part in ipairs(parts) do
    touch(part.account)
    kept[i] = { part.account.field, part.amount, part.expected }
  end
  keep(id, kept, now)
  return { 'reserved', found }
end

local answers = {}
for i, one in ipairs(ask.asks) do
  if is_late or is_stale then
    answers[i] = { 'late' }
  elseif is_old then
    answers[i] = { 'busy' }
  else
    answers[i] = answer(unpack(one))
  end
end

-- New leases: a part of what is left, so that they shrink with it, or none where what is left
-- is needed request by request.
local leases = {}
if not (is_stale or is_late) then
  local live = redis.call('ZCOUNT', LAPSE, whole(now + ask.reservation), '+inf')
  local sharers = math.max(ask.replicas, live, 1)
  for _, want in ipairs(is_old and {} or ask.wants) do
    local index, amount, least = unpack(want)
    local spec = specs[index]
    local account = account_of(whole(spec.start) .. ':' .. spec.budget)
    if account and spec.limit > 0 then
      local had = mine.amounts[account.field] or 0
      local left = spec.limit - used(account) - account.leased + had
      local fair = math.floor(left / (2 * sharers))
      local target = math.min(amount, fair)
      if fair < least or account.wanted > now then target = 0 end
      local has = math.max(had, math.min(target, left))
      if has ~= had then
        account.leased = account.leased + has - had
        touch(account)
        mine.amounts[account.field] = has
      end
      leases[account.field] = { has, target }
      seen[account.field] = account
    end
  end
  for field, amount in pairs(mine.amounts) do
    if not leases[field] then leases[field] = { amount, 0 } end
  end
end

-- Late or not, what it no longer keeps is given back only once.
if not is_stale then
  mine.seq = ask.seq
  if next(mine.amounts) then
    redis.call('HSET', LEASES, ask.replica, cmsgpack.pack(mine))
    redis.call('ZADD', LAPSE, whole(now + ask.lease + ask.reservation), ask.replica)
    is_dirty = true
  elseif redis.call('HDEL', LEASES, ask.replica) == 1 then
    redis.call('ZREM', LAPSE, ask.replica)
    is_dirty = true
  end
end

return finish({ answers = answers, leases = leases, is_stale = is_stale, is_late = is_late }, seen)
