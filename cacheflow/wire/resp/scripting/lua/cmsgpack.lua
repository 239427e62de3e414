-- The library cmsgpack: MessagePack with the choices of Redis' one: the shortest numbers, arrays for tables with keys 1 to n.
--
-- new(charge) returns the library. charge(cost) is told how many bytes were gone through outside the interpreter's own
-- instructions.

local byte, char, sub = string.byte, string.char, string.sub
local concat, floor, type, next = table.concat, math.floor, type, next
local frexp, ldexp, HUGE = math.frexp, math.ldexp, math.huge
local NESTING_MAX = 16

-- The number's bytes, most significant first, as an unsigned integer of so many bytes.
local function big(number, bytes)
  local out = {}
  for place = bytes, 1, -1 do
    out[place] = char(number % 256)
    number = floor(number / 256)
  end
  return concat(out)
end

-- IEEE 754: mantissa_bits and exponent_bits without the sign; nil when the number does not fit exactly.
local function ieee(number, mantissa_bits, bias, bytes)
  local sign = 0
  if number < 0 or 1 / number < 0 then sign, number = 1, -number end
  local exponent, mantissa = 0, 0
  if number ~= number then
    exponent, mantissa = 2 * bias + 1, 2 ^ (mantissa_bits - 1)
  elseif number == HUGE then
    exponent = 2 * bias + 1
  elseif number > 0 then
    local part, power = frexp(number)
    exponent = power + bias - 1
    if exponent > 2 * bias then return nil end
    if exponent > 0 then
      mantissa = (part * 2 - 1) * 2 ^ mantissa_bits
    else
      mantissa = part * 2 ^ (mantissa_bits + exponent)
      exponent = 0
    end
    if mantissa ~= floor(mantissa) then return nil end
  end
  -- Two halves, because a double holds 53 bits.
  local top_bits = mantissa_bits - 8 * (bytes - 2)
  local low = mantissa % 2 ^ (8 * (bytes - 2))
  local high = sign * 2 ^ 15 + exponent * 2 ^ top_bits + floor(mantissa / 2 ^ (8 * (bytes - 2)))
  return big(high, 2) .. big(low, bytes - 2)
end

local function from_ieee(source, place, mantissa_bits, bias, bytes)
  local number = byte(source, place) * 256 + byte(source, place + 1)
  local sign = number >= 2 ^ 15 and -1 or 1
  number = number % 2 ^ 15
  local top_bits = mantissa_bits - 8 * (bytes - 2)
  local exponent = floor(number / 2 ^ top_bits)
  local mantissa = number % 2 ^ top_bits
  for at = place + 2, place + bytes - 1 do mantissa = mantissa * 256 + byte(source, at) end
  if exponent == 2 * bias + 1 then return mantissa == 0 and sign * HUGE or 0 / 0 end
  if exponent == 0 then return sign * ldexp(mantissa, 1 - bias - mantissa_bits) end
  return sign * ldexp(1 + mantissa / 2 ^ mantissa_bits, exponent - bias)
end

local function pack_number(out, number)
  if number ~= floor(number) or number >= 2 ^ 63 or number < -2 ^ 63 then
    local single = ieee(number, 23, 127, 4)
    out[#out + 1] = single and '\202' .. single or '\203' .. ieee(number, 52, 1023, 8)
  elseif number >= 0 then
    if number < 0x80 then
      out[#out + 1] = char(number)
    elseif number < 0x100 then
      out[#out + 1] = '\204' .. big(number, 1)
    elseif number < 0x10000 then
      out[#out + 1] = '\205' .. big(number, 2)
    elseif number < 2 ^ 32 then
      out[#out + 1] = '\206' .. big(number, 4)
    else
      out[#out + 1] = '\207' .. big(number, 8)
    end
  elseif number >= -32 then
    out[#out + 1] = char(256 + number)
  elseif number >= -0x80 then
    out[#out + 1] = '\208' .. big(0x100 + number, 1)
  elseif number >= -0x8000 then
    out[#out + 1] = '\209' .. big(0x10000 + number, 2)
  elseif number >= -2 ^ 31 then
    out[#out + 1] = '\210' .. big(2 ^ 32 + number, 4)
  else
    -- 2^64 less a small number is no double: the upper and the lower half are made by themselves.
    local low = number % 2 ^ 32
    out[#out + 1] = '\211' .. big(2 ^ 32 + (number - low) / 2 ^ 32, 4) .. big(low, 4)
  end
end

local function head(count, fix, fix_max, ...)
  if count < fix_max then return char(fix + count) end
  for place = 1, select('#', ...), 3 do
    local limit, mark, bytes = select(place, ...)
    if count < limit then return mark .. big(count, bytes) end
  end
  error('too large to pack', 0)
end

local function array_length(value)
  local count, largest = 0, 0
  for key in next, value do
    if type(key) ~= 'number' or key < 1 or key ~= floor(key) then return nil end
    count = count + 1
    if key > largest then largest = key end
  end
  return largest == count and count or nil
end

local function pack(out, value, depth, charge)
  local kind = type(value)
  if kind == 'string' then
    charge(#value)
    out[#out + 1] = head(#value, 160, 32, 0x100, '\217', 1, 0x10000, '\218', 2, 2 ^ 32, '\219', 4)
    out[#out + 1] = value
  elseif kind == 'number' then
    pack_number(out, value)
  elseif kind == 'boolean' then
    out[#out + 1] = value and '\195' or '\194'
  elseif kind == 'table' and depth < NESTING_MAX then
    local size = array_length(value)
    if size then
      out[#out + 1] = head(size, 144, 16, 0x10000, '\220', 2, 2 ^ 32, '\221', 4)
      for place = 1, size do pack(out, rawget(value, place), depth + 1, charge) end
    else
      local count = 0
      for _ in next, value do count = count + 1 end
      out[#out + 1] = head(count, 128, 16, 0x10000, '\222', 2, 2 ^ 32, '\223', 4)
      for key, item in next, value do
        pack(out, key, depth + 1, charge)
        pack(out, item, depth + 1, charge)
      end
    end
  else
    out[#out + 1] = '\192'
  end
end

local function need(source, place, bytes)
  if place + bytes - 1 > #source then error('Missing bytes in input.', 0) end
end

local function unsigned(source, place, bytes)
  need(source, place, bytes)
  local number = 0
  for at = place, place + bytes - 1 do number = number * 256 + byte(source, at) end
  return number, place + bytes
end

local function signed(source, place, bytes)
  need(source, place, bytes)
  local number = byte(source, place)
  number = number >= 128 and number - 256 or number
  for at = place + 1, place + bytes - 1 do number = number * 256 + byte(source, at) end
  return number, place + bytes
end

local LENGTHS = {
  [0xC4] = { 'text', 1 }, [0xC5] = { 'text', 2 }, [0xC6] = { 'text', 4 },
  [0xD9] = { 'text', 1 }, [0xDA] = { 'text', 2 }, [0xDB] = { 'text', 4 },
  [0xDC] = { 'array', 2 }, [0xDD] = { 'array', 4 }, [0xDE] = { 'map', 2 }, [0xDF] = { 'map', 4 },
}
local CONSTANTS = { [0xC2] = false, [0xC3] = true }

local function unpack_value(source, place, charge)
  need(source, place, 1)
  local mark = byte(source, place)
  place = place + 1
  if mark < 0x80 then return mark, place end
  if mark >= 0xE0 then return mark - 256, place end
  if mark == 0xC0 then return nil, place end
  if CONSTANTS[mark] ~= nil then return CONSTANTS[mark], place end
  if mark == 0xCA then
    need(source, place, 4)
    return from_ieee(source, place, 23, 127, 4), place + 4
  end
  if mark == 0xCB then
    need(source, place, 8)
    return from_ieee(source, place, 52, 1023, 8), place + 8
  end
  if mark >= 0xCC and mark <= 0xCF then return unsigned(source, place, 2 ^ (mark - 0xCC)) end
  if mark >= 0xD0 and mark <= 0xD3 then return signed(source, place, 2 ^ (mark - 0xD0)) end
  local kind, count
  if mark >= 0xA0 and mark < 0xC0 then
    kind, count = 'text', mark - 0xA0
  elseif mark >= 0x90 and mark < 0xA0 then
    kind, count = 'array', mark - 0x90
  elseif mark < 0x90 then
    kind, count = 'map', mark - 0x80
  elseif LENGTHS[mark] then
    kind = LENGTHS[mark][1]
    count, place = unsigned(source, place, LENGTHS[mark][2])
  else
    error('Bad data format in input.', 0)
  end
  if kind == 'text' then
    need(source, place, count)
    charge(count)
    return sub(source, place, place + count - 1), place + count
  end
  local result = {}
  for index = 1, count do
    local key = index
    if kind == 'map' then
      key, place = unpack_value(source, place, charge)
      if key == nil or key ~= key then error('Bad data format in input.', 0) end
    end
    result[key], place = unpack_value(source, place, charge)
  end
  return result, place
end

local function new(charge)
  local cmsgpack = { _NAME = 'cmsgpack', _VERSION = 'lua-cmsgpack 0.4.0' }

  function cmsgpack.pack(...)
    local count = select('#', ...)
    if count == 0 then error("bad argument #0 to 'pack' (MessagePack pack needs input.)", 2) end
    local out = {}
    for place = 1, count do pack(out, (select(place, ...)), 0, charge) end
    charge(#out)
    return concat(out)
  end

  local function several(name, source, limit, offset)
    if type(source) == 'number' then source = tostring(source) end
    if type(source) ~= 'string' then
      error(string.format("bad argument #1 to '%s' (string expected, got %s)", name, type(source)), 3)
    end
    if offset < 0 or limit < 0 then error('Invalid request to unpack with offset or limit below 0.', 3) end
    if offset > #source then error('Start offset greater than input length.', 3) end
    local values, count, place = {}, 0, offset + 1
    while place <= #source and (limit == 0 or count < limit) do
      count = count + 1
      values[count], place = unpack_value(source, place, charge)
    end
    return values, count, place <= #source and place - 1 or -1
  end

  function cmsgpack.unpack(source)
    local values, count = several('unpack', source, 0, 0)
    return unpack(values, 1, count)
  end

  function cmsgpack.unpack_one(source, offset)
    local values, count, after = several('unpack_one', source, 1, offset or 0)
    return after, unpack(values, 1, count)
  end

  function cmsgpack.unpack_limit(source, limit, offset)
    local values, count, after = several('unpack_limit', source, limit, offset or 0)
    return after, unpack(values, 1, count)
  end

  return cmsgpack
end

return new
