"""Solving loss + penalty on all the data; `jaxreg.minimise` does it."""

from jaxreg.solve._linear import linear
from jaxreg.solve._minimise import ConvergenceError, ConvergenceWarning

__all__ = ["ConvergenceError", "ConvergenceWarning", "linear"]
