-- The library cjson: JSON with the rules and the words of Lua CJSON 2.1, as Redis has it.
--
-- new(charge) returns a library with settings of its own; null stands for JSON's null in all of them. charge(cost) is told
-- how many bytes were gone through outside the interpreter's own instructions.

local null = newproxy(false)

local byte, char, find, format, gsub, sub = string.byte, string.char, string.find, string.format, string.gsub, string.sub
local concat, floor, tonumber, tostring, type, next = table.concat, math.floor, tonumber, tostring, type, next
local HUGE = math.huge

local ESCAPES = {
  ['"'] = '\\"', ['\\'] = '\\\\', ['/'] = '\\/', ['\b'] = '\\b', ['\f'] = '\\f', ['\n'] = '\\n', ['\r'] = '\\r',
  ['\t'] = '\\t', ['\127'] = '\\u007f',
}
for code = 0, 31 do
  local letter = char(code)
  ESCAPES[letter] = ESCAPES[letter] or format('\\u%04x', code)
end
local MEANT = {
  ['"'] = '"', ['\\'] = '\\', ['/'] = '/', b = '\b', f = '\f', n = '\n', r = '\r', t = '\t',
}

local function utf8(code)
  if code < 0x80 then return char(code) end
  if code < 0x800 then return char(0xC0 + floor(code / 0x40), 0x80 + code % 0x40) end
  if code < 0x10000 then
    return char(0xE0 + floor(code / 0x1000), 0x80 + floor(code / 0x40) % 0x40, 0x80 + code % 0x40)
  end
  return char(
    0xF0 + floor(code / 0x40000), 0x80 + floor(code / 0x1000) % 0x40, 0x80 + floor(code / 0x40) % 0x40, 0x80 + code % 0x40
  )
end

local function new(charge)
  local convert, ratio, safe = false, 2, 10
  local encode_depth, decode_depth, digits = 1000, 1000, '%.14g'
  local encode_invalid, decode_invalid = false, true

  -- Encoding -----------------------------------------------------------------------------------------------------------

  local function text(value)
    charge(#value)
    return '"' .. gsub(value, '[%c"/\\\127]', ESCAPES) .. '"'
  end

  local function number(value)
    if value ~= value or value == HUGE or value == -HUGE then
      if not encode_invalid then error('Cannot serialise number: must not be NaN or Inf', 0) end
      if encode_invalid == 'null' then return 'null' end
      return value ~= value and 'nan' or value > 0 and 'inf' or '-inf'
    end
    return (format(digits, value))
  end

  -- The length of an array, or nil for what is an object.
  local function length(value)
    local count, largest = 0, 0
    for key in next, value do
      if type(key) ~= 'number' or key < 1 or floor(key) ~= key then return nil end
      count = count + 1
      if key > largest then largest = key end
    end
    if count == 0 then return nil end
    if ratio > 0 and largest > count * ratio and largest > safe then
      if not convert then error('Cannot serialise table: excessively sparse array', 0) end
      return nil
    end
    return largest
  end

  local encode_value

  local function encode_table(out, value, depth)
    if depth > encode_depth then error(format('Cannot serialise, excessive nesting (%d)', depth), 0) end
    local size = length(value)
    if size then
      out[#out + 1] = '['
      for place = 1, size do
        if place > 1 then out[#out + 1] = ',' end
        encode_value(out, rawget(value, place), depth)
      end
      out[#out + 1] = ']'
      return
    end
    out[#out + 1] = '{'
    local first = true
    for key, item in next, value do
      if not first then out[#out + 1] = ',' end
      first = false
      if type(key) == 'number' then
        out[#out + 1] = '"' .. number(key) .. '":'
      elseif type(key) == 'string' then
        out[#out + 1] = text(key) .. ':'
      else
        error(format('Cannot serialise %s: table key must be a number or string', type(key)), 0)
      end
      encode_value(out, item, depth)
    end
    out[#out + 1] = '}'
  end

  function encode_value(out, value, depth)
    local kind = type(value)
    if kind == 'string' then
      out[#out + 1] = text(value)
    elseif kind == 'number' then
      out[#out + 1] = number(value)
    elseif kind == 'boolean' then
      out[#out + 1] = value and 'true' or 'false'
    elseif kind == 'table' then
      encode_table(out, value, depth + 1)
    elseif value == nil or value == null then
      out[#out + 1] = 'null'
    else
      error(format('Cannot serialise %s: type not supported', kind), 0)
    end
  end

  -- Decoding -----------------------------------------------------------------------------------------------------------

  local function wrong(expected, source, place)
    local found = 'invalid token'
    if place > #source then
      found = 'T_END'
    else
      local letter = sub(source, place, place)
      local names = {
        ['{'] = 'T_OBJ_BEGIN', ['}'] = 'T_OBJ_END', ['['] = 'T_ARR_BEGIN', [']'] = 'T_ARR_END', [','] = 'T_COMMA',
        [':'] = 'T_COLON', ['"'] = 'T_STRING',
      }
      found = names[letter] or find(letter, '%d') and 'T_NUMBER' or found
    end
    error(format('Expected %s but found %s at character %d', expected, found, place), 0)
  end

  local function decode_text(source, place)
    local parts, from = nil, place + 1
    local at = from
    while true do
      local stop = find(source, '["\\]', at)
      if not stop then error(format('Expected value but found invalid token at character %d', #source + 1), 0) end
      charge(stop - at)
      if byte(source, stop) == 34 then
        if not parts then return sub(source, from, stop - 1), stop + 1 end
        parts[#parts + 1] = sub(source, from, stop - 1)
        return concat(parts), stop + 1
      end
      parts = parts or {}
      parts[#parts + 1] = sub(source, from, stop - 1)
      local letter = sub(source, stop + 1, stop + 1)
      local meant = MEANT[letter]
      at = stop + 2
      if letter == 'u' then
        local _, hex_end, hex = find(source, '^(%x%x%x%x)', stop + 2)
        if not hex then error(format('Expected value but found invalid unicode escape code at character %d', stop), 0) end
        local code = tonumber(hex, 16)
        at = hex_end + 1
        if code >= 0xD800 and code < 0xE000 then
          local _, low_end, low = find(source, '^\\u(%x%x%x%x)', at)
          low = low and tonumber(low, 16)
          if code >= 0xDC00 or not low or low < 0xDC00 or low > 0xDFFF then
            error(format('Expected value but found invalid unicode escape code at character %d', stop), 0)
          end
          code = 0x10000 + (code - 0xD800) * 0x400 + low - 0xDC00
          at = low_end + 1
        end
        meant = utf8(code)
      elseif not meant then
        error(format('Expected value but found invalid escape code at character %d', stop), 0)
      end
      parts[#parts + 1] = meant
      from = at
    end
  end

  local decode_value

  local function skip(source, place)
    local _, stop = find(source, '^[ \t\r\n]*', place)
    charge(stop - place + 1)
    return stop + 1
  end

  local function deeper(depth, place)
    if depth > decode_depth then
      error(format('Found too many nested data structures (%d) at character %d', depth, place), 0)
    end
  end

  local function decode_object(source, place, depth)
    deeper(depth, place)
    local result = {}
    place = skip(source, place + 1)
    if byte(source, place) == 125 then return result, place + 1 end
    while true do
      local key
      if byte(source, place) ~= 34 then wrong('object key string', source, place) end
      key, place = decode_text(source, place)
      place = skip(source, place)
      if byte(source, place) ~= 58 then wrong('colon', source, place) end
      result[key], place = decode_value(source, skip(source, place + 1), depth)
      place = skip(source, place)
      local letter = byte(source, place)
      if letter == 125 then return result, place + 1 end
      if letter ~= 44 then wrong('comma or object end', source, place) end
      place = skip(source, place + 1)
    end
  end

  local function decode_array(source, place, depth)
    deeper(depth, place)
    local result, count = {}, 0
    place = skip(source, place + 1)
    if byte(source, place) == 93 then return result, place + 1 end
    while true do
      count = count + 1
      result[count], place = decode_value(source, place, depth)
      place = skip(source, place)
      local letter = byte(source, place)
      if letter == 93 then return result, place + 1 end
      if letter ~= 44 then wrong('comma or array end', source, place) end
      place = skip(source, place + 1)
    end
  end

  function decode_value(source, place, depth)
    local letter = byte(source, place)
    if letter == 34 then return decode_text(source, place) end
    if letter == 123 then return decode_object(source, place, depth + 1) end
    if letter == 91 then return decode_array(source, place, depth + 1) end
    local _, stop = find(source, '^-?%d+%.?%d*[eE]?[+-]?%d*', place)
    if stop then
      charge(stop - place)
      -- A number may end before a sign that is not its exponent's.
      local value = tonumber(sub(source, place, stop))
      if value then return value, stop + 1 end
    elseif find(source, '^null', place) then
      return null, place + 4
    elseif find(source, '^true', place) then
      return true, place + 4
    elseif find(source, '^false', place) then
      return false, place + 5
    elseif decode_invalid then
      local _, last, sign, word = find(source, '^(-?)(%a+)', place)
      word = word and word:lower()
      if word == 'nan' then return 0 / 0, last + 1 end
      if word == 'inf' or word == 'infinity' then return sign == '-' and -HUGE or HUGE, last + 1 end
    end
    wrong('value', source, place)
  end

  -- What scripts see ---------------------------------------------------------------------------------------------------

  local function one(name, count)
    if count ~= 1 then error(format("bad argument #1 to '%s' (expected 1 argument)", name), 3) end
  end

  local function depth_of(value, present)
    if value == nil then return present end
    value = tonumber(value)
    if not value or value < 1 or value > 2 ^ 31 - 1 then
      error('bad argument #1: expected integer between 1 and 2147483647', 3)
    end
    return floor(value)
  end

  local cjson = { null = null, _NAME = 'cjson', _VERSION = '2.1.0' }

  function cjson.encode(...)
    one('encode', select('#', ...))
    local out = {}
    encode_value(out, (...), 0)
    charge(#out)
    return concat(out)
  end

  function cjson.decode(...)
    one('decode', select('#', ...))
    local source = ...
    if type(source) == 'number' then source = tostring(source) end
    if type(source) ~= 'string' then
      error(format("bad argument #1 to 'decode' (string expected, got %s)", type(source)), 2)
    end
    local value, place = decode_value(source, skip(source, 1), 0)
    place = skip(source, place)
    if place <= #source then wrong('the end', source, place) end
    return value
  end

  function cjson.encode_sparse_array(convert_, ratio_, safe_)
    if convert_ ~= nil then convert = convert_ end
    ratio, safe = tonumber(ratio_) or ratio, tonumber(safe_) or safe
    return convert, ratio, safe
  end

  function cjson.encode_max_depth(depth)
    encode_depth = depth_of(depth, encode_depth)
    return encode_depth
  end

  function cjson.decode_max_depth(depth)
    decode_depth = depth_of(depth, decode_depth)
    return decode_depth
  end

  function cjson.encode_number_precision(count)
    count = count and tonumber(count) or 14
    if count < 1 or count > 16 then error('bad argument #1: expected integer between 1 and 16', 2) end
    digits = format('%%.%dg', count)
    return floor(count)
  end

  function cjson.encode_keep_buffer(keep)
    return keep ~= false
  end

  function cjson.encode_invalid_numbers(setting)
    if setting ~= nil then encode_invalid = setting end
    return encode_invalid
  end

  function cjson.decode_invalid_numbers(setting)
    if setting ~= nil then decode_invalid = setting end
    return decode_invalid
  end

  return cjson
end

return new, null
