"""The replicated state machine: pure, so that the same log gives the same state on every node."""
