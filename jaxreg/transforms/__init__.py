"""Optax transformations, one per file."""
