"""Solving loss + penalty on all the data, to a tolerance."""

from jaxreg.solve._linear import Linear, linear
from jaxreg.solve._minimise import (
    ConvergenceError,
    ConvergenceWarning,
    Fit,
    minimise,
)

__all__ = [
    "ConvergenceError",
    "ConvergenceWarning",
    "Fit",
    "Linear",
    "linear",
    "minimise",
]
