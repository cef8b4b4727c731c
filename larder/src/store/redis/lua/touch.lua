-- ARGV[3]: the new end of the TTL. ARGV[4]: the new stamp.
if not is_live() then return false end
local before, fresh, stale = head(), ARGV[3], ARGV[3]
if is_frame then
  local old_fresh, old_stale = string.sub(header, 29, 36), string.sub(header, 37, 44)
  if fresh ~= NEVER and old_stale ~= NEVER and after(old_stale, old_fresh) then
    stale = moment(ms(fresh) + ms(old_stale) - ms(old_fresh))
  end
  redis.call('SETRANGE', key, 11, ARGV[4] .. '\0' .. START .. fresh .. stale)
end
expire_at(stale)
return before
