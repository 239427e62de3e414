"""Caches opened by their URL, for applications that name theirs in a setting."""
