redis.call('HINCRBY', space, 'seq', 1)
redis.call('HSET', space, 'floor', redis.call('HGET', space, 'seq'))
return 1
