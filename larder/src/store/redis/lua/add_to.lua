-- ARGV[4]: what to add. The sum is read back as text: a number of Lua's would be rounded.
if not is_live() then return 0 end
if not is_plain then return 1 end
-- Digits with zeros in front are an integer to every reader, but not to the server's own counting.
local sign, digits = string.match(header, '^(%-?)0*(%d+)$')
local integer = digits == '0' and digits or sign .. digits
if integer ~= header then redis.call('SET', key, integer, 'KEEPTTL') end
local sum = redis.pcall('INCRBY', key, ARGV[4])
if type(sum) == 'number' then return redis.call('GET', key) end
return string.find(sum.err, 'overflow', 1, true) and 2 or 1
