-- Removes the slots KEYS[2] that were noted since the clear ARGV[1] began, unless KEYS[1] no longer
-- says that it is under way: then some may not have been noted.
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
local names = redis.call('SMEMBERS', KEYS[2])
for at = 1, #names, 1000 do
  redis.call('UNLINK', unpack(names, at, math.min(at + 999, #names)))
end
redis.call('UNLINK', KEYS[2])
return 1
