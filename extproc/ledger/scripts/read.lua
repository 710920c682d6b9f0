-- How accounts stand: those that are named, or all. What is overdue expires first.

-- Who was without the store looks what became of these books before anything else. On another
-- server, or on the same that began anew, nobody knows how much of them is gone.
if ask.run and ask.run ~= run then
  run = ask.run
  begin_anew()
end
for _, seen in ipairs(ask.seen or {}) do
  if seen[5] == birth and seen[6] > written then
    begin_anew()
    break
  end
end

tidy(0)

local found, lacking = {}, 0

-- Whether a replica saw the account later than these books were written, and than others saw it.
local function is_news(account, seen)
  local heard_birth, heard_written = seen[5], seen[6]
  if heard_birth == birth_before and heard_written <= written_before then return false end
  local other_birth, other_written = unpack(account.heard)
  return heard_birth > other_birth or (heard_birth == other_birth and heard_written > other_written)
end

if ask.is_raising then
  -- These books are older than what a replica saw of them. Until the settlements that they lack
  -- come again, count what is missing as used.
  for _, seen in ipairs(ask.seen) do
    local budget, start, stop, committed, heard_birth, heard_written = unpack(seen)
    local account = open(budget, start, stop)
    if account then
      if is_news(account, seen) then
        account.seen, account.heard = committed, { heard_birth, heard_written }
        touch(account)
        if gap(account) > 0 then lacking = lacking + 1 end
      end
      found[account.field] = account
    end
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
return finish({
  held = redis.call('ZCARD', DUE), over = redis.call('ZCARD', OVER), lacking = lacking }, found)
