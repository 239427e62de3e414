"""The forms that a cache gives to keys and values on their way in, and takes away on their way out."""
