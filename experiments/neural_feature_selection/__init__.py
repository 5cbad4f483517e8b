"""The inputs that a network needs."""
