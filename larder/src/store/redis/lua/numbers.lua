-- The numbers of the space KEYS[1], with the era ARGV[1] if it has none. What was written there by
-- others is dropped: a new era makes every entry a miss. Stands before the scripts below.
local space = KEYS[1]
local kind = redis.call('TYPE', space).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', space) end
redis.call('HSETNX', space, 'era', ARGV[1])
