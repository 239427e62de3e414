"""Watches: the changes of a cache's keys, for an application to iterate over."""
