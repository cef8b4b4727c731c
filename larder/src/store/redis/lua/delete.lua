local before = false
if is_live() then before = head() end
redis.call('UNLINK', key)
return before
