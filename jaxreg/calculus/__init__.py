"""Penalties made from penalties."""

from jaxreg.calculus.grouped import GroupPenalty, grouped

__all__ = ["GroupPenalty", "grouped"]
