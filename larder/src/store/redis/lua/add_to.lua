-- ARGV[4]: what to add. ARGV[5]: the new stamp. The sum is read back as text: a number of Lua's would be
-- rounded. In a cluster a plain integer is a frame, of which the server is shown the digits for a moment.
if not is_live() then return 0 end
local before, sign, digits
if is_plain then
  sign, digits = string.match(header, '^(%-?)0*(%d+)$')
elseif takes_digits or string.byte(header, 2) ~= 1 or string.byte(header, 20) ~= 0
  or string.sub(header, 29, 36) ~= string.sub(header, 37, 44) or meta_end() ~= HEADER + 24 + #whole then
  return 1
else
  before = redis.call('GET', key)
  sign, digits = string.match(string.sub(before, meta_end() + 1), '^(%-?)0*(%d+)$')
end
-- Digits with zeros in front are an integer to every reader, but not to the server's own counting.
local integer = digits == '0' and digits or sign .. digits
if integer ~= header then redis.call('SET', key, integer, 'KEEPTTL') end
local sum = redis.pcall('INCRBY', key, ARGV[4])
if type(sum) == 'number' then
  sum = redis.call('GET', key)
  if before then
    local frame = string.sub(before, 1, 11) .. ARGV[5] .. string.sub(before, 20, meta_end()) .. sum
    redis.call('SET', key, frame, 'KEEPTTL')
  end
  return sum
end
if before then redis.call('SET', key, before, 'KEEPTTL') end
return string.find(sum.err, 'overflow', 1, true) and 2 or 1
