"""CacheFlow: a Raft-consistent, replicated key-value cache."""
