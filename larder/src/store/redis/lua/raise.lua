-- ARGV[2]: how many fields are kept. ARGV[3…]: tags, as fields. The number is read back as text.
redis.call('HINCRBY', space, 'seq', 1)
local seq = redis.call('HGET', space, 'seq')
for at = 3, #ARGV do
  redis.call('HSET', space, ARGV[at], seq)
end
if redis.call('HLEN', space) > tonumber(ARGV[2]) then
  local era = redis.call('HGET', space, 'era')
  redis.call('UNLINK', space)
  -- Not taken, as in `raise_floor`: another era.
  redis.pcall('HSET', space, 'era', era, 'seq', seq, 'floor', seq)
end
return seq
