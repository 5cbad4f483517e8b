"""Penalties, one per file, named as the literature names them."""
