-- ARGV[3]: what to add. The sum is read back as text: a number of Lua's would be rounded.
if not is_live() then return 0 end
if not is_plain then return 1 end
local sum = redis.pcall('INCRBY', key, ARGV[3])
if type(sum) == 'number' then return redis.call('GET', key) end
-- Digits with zeros in front are an integer to a reader, but not to the server.
return string.find(sum.err, 'overflow', 1, true) and 2 or 1
