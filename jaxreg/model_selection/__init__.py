"""Choosing the strength: grids, sweeps, and selection from their results."""

from jaxreg.model_selection._path import cross_validate, path
from jaxreg.model_selection._selection import (
    information_criteria,
    pareto_front,
    stability_selection,
    validation_curve,
)
from jaxreg.model_selection._sweep import fold_masks, strength_grid, sweep

__all__ = [
    "cross_validate",
    "fold_masks",
    "information_criteria",
    "pareto_front",
    "path",
    "stability_selection",
    "strength_grid",
    "sweep",
    "validation_curve",
]
