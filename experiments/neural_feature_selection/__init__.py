"""Which inputs a network needs."""
