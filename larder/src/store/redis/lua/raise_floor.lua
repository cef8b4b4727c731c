-- Every tag counts as the floor from now on: a number that stayed would be below it.
redis.call('HINCRBY', space, 'seq', 1)
local seq = redis.call('HGET', space, 'seq')
local era = redis.call('HGET', space, 'era')
redis.call('UNLINK', space)
redis.call('HSET', space, 'era', era, 'seq', seq, 'floor', seq)
return 1
