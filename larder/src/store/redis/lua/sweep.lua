-- Deletes those of KEYS[2…] that are bare integers, unless the field ARGV[2] of KEYS[1] says that
-- they are good in the incarnation ARGV[1]: then another process has finished, and writes them.
if redis.call('HGET', KEYS[1], ARGV[2]) == ARGV[1] then return 0 end
for at = 2, #KEYS do
  local start = redis.pcall('GETRANGE', KEYS[at], 0, 63)
  if type(start) == 'string' and string.find(start, '^%-?%d+$') then
    redis.call('UNLINK', KEYS[at])
  end
end
return 1
