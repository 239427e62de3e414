"""The log of a server's process."""
