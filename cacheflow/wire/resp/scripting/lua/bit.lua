-- The library bit: operations on 32-bit integers, over numbers that are doubles.
--
-- A pair of nibbles is looked up in a table; 8 of them are a word. Results are signed, as BitOp's.

local floor, format = math.floor, string.format
local WORD, HALF = 2 ^ 32, 2 ^ 31

local function unsigned(x)
  x = tonumber(x)
  if x == nil then error('bad argument to a function of bit: number expected', 3) end
  -- Halves go to the even number, as in BitOp, whose trick is the rounding of doubles.
  local low = floor(x)
  local part = x - low
  if part > 0.5 or (part == 0.5 and low % 2 == 1) then low = low + 1 end
  low = low % WORD
  if low ~= low then low = 0 end
  return low
end

local function signed(x)
  return x >= HALF and x - WORD or x
end

local function nibbles(of)
  local found = {}
  for a = 0, 15 do
    for b = 0, 15 do
      local result, x, y, weight = 0, a, b, 1
      for _ = 1, 4 do
        if of(x % 2, y % 2) then result = result + weight end
        x, y, weight = floor(x / 2), floor(y / 2), weight * 2
      end
      found[a * 16 + b] = result
    end
  end
  return found
end

local function operation(of)
  local found = nibbles(of)
  return function(first, ...)
    local result = unsigned(first)
    for place = 1, select('#', ...) do
      local x, y, weight = result, unsigned((select(place, ...))), 1
      result = 0
      for _ = 1, 8 do
        result = result + found[x % 16 * 16 + y % 16] * weight
        x, y, weight = floor(x / 16), floor(y / 16), weight * 16
      end
    end
    return signed(result)
  end
end

local bit = {
  band = operation(function(a, b) return a + b == 2 end),
  bor = operation(function(a, b) return a + b > 0 end),
  bxor = operation(function(a, b) return a ~= b end),
}

function bit.tobit(x) return signed(unsigned(x)) end

function bit.bnot(x) return signed(WORD - 1 - unsigned(x)) end

function bit.lshift(x, n)
  n = unsigned(n) % 32
  return signed(unsigned(x) % 2 ^ (32 - n) * 2 ^ n)
end

function bit.rshift(x, n) return signed(floor(unsigned(x) / 2 ^ (unsigned(n) % 32))) end

function bit.arshift(x, n) return floor(signed(unsigned(x)) / 2 ^ (unsigned(n) % 32)) end

function bit.rol(x, n)
  x, n = unsigned(x), unsigned(n) % 32
  local rest = 2 ^ (32 - n)
  return signed(x % rest * 2 ^ n + floor(x / rest))
end

function bit.ror(x, n) return bit.rol(x, 32 - unsigned(n) % 32) end

function bit.bswap(x)
  x = unsigned(x)
  local result = 0
  for _ = 1, 4 do
    result = result * 256 + x % 256
    x = floor(x / 256)
  end
  return signed(result)
end

function bit.tohex(x, n)
  n = n == nil and 8 or signed(unsigned(n))
  local digits = format(n < 0 and '%08X' or '%08x', unsigned(x))
  n = n < 0 and -n or n
  return n >= 8 and digits or digits:sub(9 - n)
end

return bit
