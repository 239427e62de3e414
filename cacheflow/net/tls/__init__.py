"""TLS for every port of a node: certificates, handshakes in a thread of their own, and connections that are encrypted."""
