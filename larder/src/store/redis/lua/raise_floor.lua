-- Every tag counts as the floor from now on: a number that stayed would be below it.
redis.call('HINCRBY', space, 'seq', 1)
local seq = redis.call('HGET', space, 'seq')
local era = redis.call('HGET', space, 'era')
redis.call('UNLINK', space)
-- A slot that is on its way to another node takes nothing new: then there are no numbers, and the next
-- who asks there draws another era, in which nothing of this one is good.
redis.pcall('HSET', space, 'era', era, 'seq', seq, 'floor', seq)
return 1
