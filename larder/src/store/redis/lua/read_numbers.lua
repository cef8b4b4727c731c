-- ARGV[2…]: tags, as fields.
local numbers = redis.call('HMGET', space, 'seq', 'era', 'floor')
for at = 2, #ARGV do
  numbers[at + 2] = redis.call('HGET', space, ARGV[at])
end
return numbers
