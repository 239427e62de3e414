"""Back ends for the caches of web frameworks and libraries: one file each, over ``open_cache``; nothing here imports them."""
