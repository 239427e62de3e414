"""What ``cacheflow status`` and ``cacheflow top`` share: all nodes of a cluster asked at once, and shown as one picture."""
