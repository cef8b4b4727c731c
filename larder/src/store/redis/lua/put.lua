-- ARGV[4]: absent, present, or the stamp wanted. ARGV[5]: the bytes. ARGV[6]: ms, 0 gone, -1 never.
local when, bytes, life = ARGV[4], ARGV[5], ARGV[6]
local may
if when == 'absent' then
  may = not is_live()
elseif when == 'present' then
  may = is_live()
else
  -- Bare digits have no stamp that would tell one write of them from another.
  may = is_frame and string.sub(header, 12, 19) == when
  if may then note_for_clear() end
end
if not may then return 0 end
if life == '0' then
  redis.call('UNLINK', key)
elseif life == '-1' then
  redis.call('SET', key, bytes)
else
  redis.call('SET', key, bytes, 'PX', life)
end
return 1
