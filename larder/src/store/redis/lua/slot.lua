-- What the slot KEYS[1] holds, seen by a writer in the incarnation ARGV[1] at the moment ARGV[2];
-- ARGV[3] is the whole key where the slot's name is a hash, else empty. KEYS[2] says which clears are
-- under way; on a node of a cluster there is none, since it would be in another slot.
-- Stands before each script about one slot. Moments, stamps and incarnations are 8 bytes,
-- big-endian; their halves are compared, since a double is too narrow and the order of strings
-- depends on the locale. Offsets are those of `entry.rs`, counted from 1.
local key, incarnation, now, whole = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local MAX_DECODED = 67108864
local HEADER, START, NEVER = 48, string.rep('\0', 8), string.rep('\255', 8)

local function after(a, b)
  local a_high, a_low = struct.unpack('>I4I4', a)
  local b_high, b_low = struct.unpack('>I4I4', b)
  return a_high > b_high or (a_high == b_high and a_low > b_low)
end

local function is_integer(text)
  local sign, digits = string.match(text, '^(%-?)0*(%d+)$')
  if not digits or #digits > 19 then return false end
  if #digits < 19 then return true end
  local head, tail = tonumber(string.sub(digits, 1, 10)), tonumber(string.sub(digits, 11))
  local most = sign == '' and 854775807 or 854775808
  return head < 9223372036 or (head == 9223372036 and tail <= most)
end

local function ms(moment)
  local high, low = struct.unpack('>I4I4', moment)
  return high * 4294967296 + low
end

local function moment(number)
  local high = math.floor(number / 4294967296)
  return struct.pack('>I4I4', high, number - high * 4294967296)
end

-- `header` is an error where the key is not a string: foreign, thus nothing, like foreign bytes.
local header = redis.pcall('GETRANGE', key, 0, HEADER - 1)
local is_plain, is_frame = false, false
-- Digits do not say which node took them, so that in a cluster they are nothing.
local takes_digits = KEYS[2] ~= nil or incarnation == START
if type(header) == 'string' then
  if string.byte(header) == 251 then
    is_frame = #header == HEADER and string.sub(header, 4, 11) == incarnation
      and string.byte(header, 20) <= 3
  else
    is_plain = takes_digits and #header <= 20 and is_integer(header)
  end
end

local function meta_end()
  return HEADER + struct.unpack('>I4', string.sub(header, 45, 48))
end

-- Whether this is the entry of the key and its body is whole: what a reader would call unreadable is
-- not live.
local function is_readable()
  local body, length, start = string.byte(header, 2), redis.call('STRLEN', key), meta_end()
  if start < HEADER + 24 + #whole or start > length then return false end
  if whole ~= '' then
    local stated = redis.call('GETRANGE', key, start - 12 - #whole, start - 9)
    if stated ~= struct.pack('>I4', #whole) .. whole then return false end
  end
  if body == 1 or body == 3 then return is_integer(redis.call('GETRANGE', key, start, -1)) end
  local decoded = redis.call('GETRANGE', key, start - 8, start - 1)
  return body == 2 and length - start <= MAX_DECODED
    and decoded == struct.pack('>I4I4', 0, length - start)
end

local function is_live()
  if is_plain then return true end
  return is_frame and string.byte(header, 2) ~= 0
    and after(string.sub(header, 29, 36), now) and is_readable()
end

-- All but the value: what is left of an integer's life in ms, or the frame up to its body.
local function head()
  if is_plain then return redis.call('PTTL', key) end
  return redis.call('GETRANGE', key, 0, meta_end() - 1)
end

local function expire_at(deadline)
  if deadline == NEVER then
    redis.call('PERSIST', key)
  else
    redis.call('PEXPIRE', key, string.format('%.0f', math.min(ms(deadline) - ms(now), 1e15)))
  end
end

-- Notes the slot with each clear of KEYS[2] that is under way and would have removed it, had it come by
-- later: the clear ends with those.
local function note_for_clear()
  if not KEYS[2] then return end
  local clears = redis.pcall('HGETALL', KEYS[2])
  for at = 1, #clears, 2 do
    local scope, noted = clears[at + 1], ':@:cleared:' .. clears[at]
    if string.sub(key, 1, #scope) == scope then
      redis.call('SADD', noted, key)
      redis.call('PEXPIRE', noted, 600000)
    end
  end
end
