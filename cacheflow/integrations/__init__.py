"""Frameworks' caches over CacheFlow: one module for each framework, imported by name; each needs the extra of that name."""
