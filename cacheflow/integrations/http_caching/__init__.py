"""What a shared HTTP cache may keep and give (RFC 9111 in small), and how a cluster keeps it. Pure: no I/O, no clock."""
