-- Small texts by name. They are about no tenant, and so have a slot of their own.

local change = cmsgpack.unpack(ARGV[1])
local count = redis.call('HLEN', KEYS[1])
for name in pairs(change.kept) do
  count = count + 1 - redis.call('HEXISTS', KEYS[1], name)
end
for _, name in ipairs(change.deleted) do
  count = count - redis.call('HEXISTS', KEYS[1], name)
end
if count > change.max then return cmsgpack.pack(false) end
for name, text in pairs(change.kept) do redis.call('HSET', KEYS[1], name, text) end
for _, name in ipairs(change.deleted) do redis.call('HDEL', KEYS[1], name) end
redis.call('INCR', KEYS[2])
return cmsgpack.pack(true)
