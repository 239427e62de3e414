"""The project beside its peers: redis-server, memcached and etcd, in one run, under one load generator."""
