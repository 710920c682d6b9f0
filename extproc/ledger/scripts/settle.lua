-- Charge what was used, give the rest back, and remember that it was done: one step.

tidy(#ask.settlements)

local function settled(id, charges)
  local held = known(id)
  if held == SETTLED then return 'repeated' end
  local where, planned = {}, {}
  for _, part in ipairs(held and held.parts or {}) do
    where[string.sub(part[1], string.find(part[1], ':', 1, true) + 1)] = part[1]
  end
  for _, item in ipairs(charges) do
    local budget, start, amount = unpack(item)
    local account
    if where[budget] then
      local from = tonumber(string.sub(where[budget], 1, string.find(where[budget], ':', 1, true) - 1))
      start = from
    end
    if amount > 0 and start > 0 then
      account = open(budget, start, 0)
      if not account then return 'unavailable' end
      planned[#planned + 1] = { account, amount }
    end
  end
  for _, part in ipairs(held and held.parts or {}) do
    local account = account_of(part[1])
    if account then
      if held.is_expired then
        -- What a replay brings was charged before; in this life of the books, or an earlier one.
        account.committed = account.committed - part[3]
        if not ask.is_replay or held.life == life then account.fresh = account.fresh - part[3] end
      else
        account.reserved = account.reserved - part[2]
      end
      touch(account)
    end
  end
  for _, plan in ipairs(planned) do
    local account, amount = unpack(plan)
    -- Where what a replay brings is open here, these books went back.
    charge(account, amount, not held or ask.is_replay)
  end
  redis.call('HSET', HELD, id, SETTLED)
  is_over(id)
  if not held then return 'unknown' end
  return held.is_expired and 'late' or 'settled'
end

local taken = {}
for i, settlement in ipairs(ask.settlements) do
  taken[i] = settled(unpack(settlement))
end
return finish({ taken = taken })
