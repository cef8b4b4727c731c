-- ARGV[4]: the new end of the TTL. ARGV[5]: the new stamp.
if not is_live() then return false end
local before, fresh, stale = head(), ARGV[4], ARGV[4]
if is_frame then
  local old_fresh, old_stale = string.sub(header, 29, 36), string.sub(header, 37, 44)
  if old_fresh == NEVER or fresh == NEVER then
    stale = fresh
  elseif old_stale == NEVER then
    stale = NEVER
  elseif after(old_stale, old_fresh) then
    stale = moment(ms(fresh) + ms(old_stale) - ms(old_fresh))
  end
  redis.call('SETRANGE', key, 11, ARGV[5] .. '\0' .. START .. fresh .. stale)
end
expire_at(stale)
return before
