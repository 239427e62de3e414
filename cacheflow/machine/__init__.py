"""The replicated state machine: pure, the same log gives the same state on every node."""
