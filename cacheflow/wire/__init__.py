"""The wire ports: memcached's and Redis' protocols, spoken from the event loop that owns the state."""
