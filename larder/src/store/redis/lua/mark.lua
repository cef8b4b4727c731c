-- ARGV[4]: the stamp seen, empty for an empty slot. ARGV[5]: stamp, state and its end, as in a frame.
-- ARGV[6]: a frame with nothing but a mark. ARGV[7]: the frame of an integer up to its body.
local seen, mark, bare, integer = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local deadline = string.sub(mark, 10, 17)
if is_frame then
  if string.sub(header, 12, 19) ~= seen then return 0 end
  redis.call('SETRANGE', key, 11, mark)
  local stale = string.sub(header, 37, 44)
  if string.byte(header, 2) ~= 0 and after(stale, deadline) then deadline = stale end
elseif is_plain then
  if seen ~= START then return 0 end
  local left, fresh = redis.call('PTTL', key), NEVER
  if left >= 0 then fresh = moment(ms(now) + left) end
  redis.call('SET', key, string.sub(integer, 1, 11) .. mark .. fresh .. fresh
    .. string.sub(integer, 45) .. header)
  if after(fresh, deadline) then deadline = fresh end
else
  if seen ~= '' then return 0 end
  redis.call('SET', key, bare)
end
expire_at(deadline)
note_for_clear()
return 1
