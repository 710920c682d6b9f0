-- How accounts stand: those that are named, or all. What is overdue expires first.

tidy(0)

local found = {}
if ask.is_raising then
  -- These books are older than what a replica saw of them. Until the settlements that they lack
  -- come again, count what is missing as used.
  for _, seen in ipairs(ask.seen) do
    local budget, start, stop, committed = unpack(seen)
    local account = open(budget, start, stop)
    if account and account.committed + account.gap < committed then
      account.gap = committed - account.committed
      touch(account)
    end
    if account then found[account.field] = account end
  end
elseif ask.fields then
  for _, field in ipairs(ask.fields) do
    local account = account_of(field)
    if account then found[field] = account end
  end
else
  for _, field in ipairs(redis.call('HKEYS', ACCOUNTS)) do
    found[field] = account_of(field)
  end
end
return finish({ held = redis.call('ZCARD', DUE), over = redis.call('ZCARD', OVER) }, found)
