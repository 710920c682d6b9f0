-- What all scripts begin with: the books of one tenant.
--
-- Time is the server's, in microseconds since 1970. All numbers are whole and below 2^53, where
-- Lua's doubles are exact. Nothing is written before `finish`, but for what time asks for.

local ACCOUNTS, FORGET, HELD, DUE, OVER, LEASES, LAPSE, MARK = unpack(KEYS)
local SUM_MAX = 4503599627370496
local KEPT_MIN = 300 * 1000000
local WINDOW_MAX = 366 * 86400 * 1000000
local FORGOTTEN_PER_CALL = 64
local OVERDUE_PER_CALL = 256
local SETTLED = 'S'

local ask = cmsgpack.unpack(ARGV[1])
local now = ask.now
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

-- The mark counts the calls that wrote. `birth` tells one life of these books from another, `life`
-- numbers them, `run` is the server's that they are lived on, and `before` is where the last ended.
local mark = redis.call('GET', MARK)
mark = mark and cmsgpack.unpack(mark) or { 0, now, 0, 0, 1, '', 0, 0 }
local written, birth, lasts, forgotten, life, run, birth_before, written_before = unpack(mark)

local accounts, dirty, is_dirty = {}, {}, false
local expired, is_behind, opened = {}, false, nil

local function whole(number)
  return string.format('%.0f', number)
end

local function touch(account)
  dirty[account.field] = account
  is_dirty = true
end

-- These books may have gone back: from now on they are others, and whoever knew them notices.
-- Before any account is read.
local function begin_anew()
  birth_before, written_before = birth, written
  birth, life = math.max(now, birth + 1), life + 1
  is_dirty = true
end

-- `fresh` is what was charged for the first time in this life of the books, `seen` what a replica
-- saw charged in an earlier one, and `heard` when: the birth and the mark of those books.
local function account_of(field)
  local account = accounts[field]
  if account then return account end
  local packed = redis.call('HGET', ACCOUNTS, field)
  if not packed then return nil end
  local p = cmsgpack.unpack(packed)
  account = { field = field, committed = p[1], reserved = p[2], leased = p[3], wanted = p[4],
              start = p[5], stop = p[6], life = p[7], fresh = p[8],
              seen = p[9] or 0, heard = { p[10] or 0, p[11] or 0 } }
  if account.life ~= life then
    if account.seen > 0 then account.seen = account.seen + account.fresh end
    account.life, account.fresh = life, 0
  end
  accounts[field] = account
  return account
end

-- The account, opened if there is none; nil beyond the number that is kept. A stop of 0 is one
-- that nobody knows, or that never comes.
local function open(budget, start, stop)
  local field = whole(start) .. ':' .. budget
  local account = account_of(field)
  if account then
    if stop ~= 0 and account.stop ~= stop then
      account.stop = stop
      account.is_new = true
    end
    return account
  end
  opened = opened or redis.call('ZCARD', FORGET)
  if opened >= ask.accounts_max then return nil end
  opened = opened + 1
  account = { field = field, committed = 0, reserved = 0, leased = 0, wanted = 0, start = start,
              stop = stop, life = life, fresh = 0, seen = 0, heard = { 0, 0 }, is_new = true }
  accounts[field] = account
  return account
end

local function forget_at(account)
  if account.start == 0 then return now + KEPT_MIN end
  local stop = account.stop
  if stop == 0 then stop = account.start + WINDOW_MAX end
  return math.max(now, stop) + math.max(KEPT_MIN, stop - account.start)
end

-- What was seen charged, and has not been charged again.
local function gap(account)
  if account.seen == 0 then return 0 end
  return math.max(0, account.seen - (account.committed - account.fresh))
end

local function used(account)
  return account.committed + gap(account) + account.reserved
end

local function charge(account, amount, is_again)
  amount = math.min(amount, SUM_MAX - account.committed)
  account.committed = account.committed + amount
  if not is_again then account.fresh = account.fresh + amount end
  touch(account)
  return amount
end

-- A reservation, held or expired: parts {field, amount, expected}, which become {field, amount,
-- charged} when it expires.
local function reservation(id)
  local packed = redis.call('HGET', HELD, id)
  if not packed then return nil end
  if packed == SETTLED then return SETTLED end
  return cmsgpack.unpack(packed)
end

local function is_over(id)
  redis.call('ZREM', DUE, id)
  redis.call('ZADD', OVER, whole(now), id)
  is_dirty = true
end

local function expire(id, held)
  for _, part in ipairs(held.parts) do
    local account = account_of(part[1])
    local charged = 0
    if account then
      account.reserved = account.reserved - part[2]
      if account.start ~= 0 then charged = charge(account, part[3]) end
      touch(account)
    end
    part[3] = charged
  end
  held.is_expired, held.life = true, life
  redis.call('HSET', HELD, id, cmsgpack.pack(held))
  is_over(id)
  expired[#expired + 1] = id
end

local function expire_overdue(most)
  local overdue = redis.call('ZRANGEBYSCORE', DUE, '-inf', whole(now), 'LIMIT', 0, most)
  for _, id in ipairs(overdue) do
    local held = reservation(id)
    if held and held ~= SETTLED then expire(id, held) else redis.call('ZREM', DUE, id) end
  end
  is_behind = #overdue == most
end

-- What is known of a reservation, after it has expired if it should have.
local function known(id)
  local held = reservation(id)
  if is_behind and held and held ~= SETTLED and not held.is_expired then
    local due = redis.call('ZSCORE', DUE, id)
    if due and tonumber(due) <= now then expire(id, held) end
  end
  return held
end

local function forget_over(most)
  local latest = now - ask.remembered
  local gone = redis.call('ZRANGEBYSCORE', OVER, '-inf', whole(latest), 'WITHSCORES', 'LIMIT', 0, most)
  if #gone == 0 and redis.call('ZCARD', OVER) > ask.remembered_max then
    gone = redis.call('ZRANGE', OVER, 0, most - 1, 'WITHSCORES')
  end
  for i = 1, #gone, 2 do
    redis.call('HDEL', HELD, gone[i])
    redis.call('ZREM', OVER, gone[i])
    forgotten = math.max(forgotten, tonumber(gone[i + 1]))
    is_dirty = true
  end
end

local function forget_accounts()
  local fields = redis.call('ZRANGEBYSCORE', FORGET, '-inf', whole(now), 'LIMIT', 0, FORGOTTEN_PER_CALL)
  for _, field in ipairs(fields) do
    local account = account_of(field)
    if account and (account.reserved > 0 or account.leased > 0) then
      redis.call('ZADD', FORGET, whole(now + KEPT_MIN), field)
    else
      redis.call('HDEL', ACCOUNTS, field)
      redis.call('ZREM', FORGET, field)
      accounts[field] = nil
    end
    is_dirty = true
  end
end

-- Leases of replicas that are gone: what they had not told of can't be in use any longer.
local function lapse()
  for _, replica in ipairs(redis.call('ZRANGEBYSCORE', LAPSE, '-inf', whole(now), 'LIMIT', 0, 16)) do
    local packed = redis.call('HGET', LEASES, replica)
    for field, amount in pairs(packed and cmsgpack.unpack(packed).amounts or {}) do
      local account = account_of(field)
      if account then
        account.leased = account.leased - amount
        touch(account)
      end
    end
    redis.call('HDEL', LEASES, replica)
    redis.call('ZREM', LAPSE, replica)
    is_dirty = true
  end
end

local function tidy(more)
  expire_overdue(OVERDUE_PER_CALL)
  forget_over(FORGOTTEN_PER_CALL + 2 * more)
  forget_accounts()
  lapse()
end

local function report(account)
  return { account.field, account.committed + gap(account), account.reserved, account.leased,
           account.start, account.stop }
end

-- Write what has changed, and answer with it. Keys last until nothing in them is needed.
local function finish(reply, also)
  local changed, last = {}, now + math.max(ask.remembered, ask.reservation * 2) + KEPT_MIN
  for field, account in pairs(dirty) do
    local p = { account.committed, account.reserved, account.leased, account.wanted,
                account.start, account.stop, account.life, account.fresh }
    if account.seen > 0 then p[9], p[10], p[11] = account.seen, unpack(account.heard) end
    redis.call('HSET', ACCOUNTS, field, cmsgpack.pack(p))
    local until_ = forget_at(account)
    if account.is_new or account.start == 0 then
      redis.call('ZADD', FORGET, whole(until_), field)
    end
    last = math.max(last, until_)
    changed[#changed + 1] = report(account)
  end
  for field, account in pairs(also or {}) do
    if not dirty[field] then changed[#changed + 1] = report(account) end
  end
  if is_dirty then
    written = written + 1
    lasts = math.max(lasts, last)
    redis.call('SET', MARK, cmsgpack.pack({
      written, birth, lasts, forgotten, life, run, birth_before, written_before }))
    for _, key in ipairs(KEYS) do
      redis.call('PEXPIRE', key, whole(math.ceil((lasts - now) / 1000)))
    end
  end
  reply.now, reply.written, reply.birth, reply.lasts = now, written, birth, lasts
  reply.forgotten, reply.expired, reply.accounts = forgotten, expired, changed
  reply.is_behind = is_behind
  return cmsgpack.pack(reply)
end
