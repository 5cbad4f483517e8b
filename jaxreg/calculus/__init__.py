"""Penalties made from penalties."""
