"""Rows of penalties of order and smoothness: sorted L1, total variation, trends."""

import numpy as np
from scipy.optimize import isotonic_regression, lsq_linear

import jaxreg
from tests.laws.row import Leaves, Row, constants, total

SORTED = constants([0.5, 0.25])


def slope(params: Leaves) -> np.ndarray:
    """`sum_i strengths_i |x|_(i)`."""
    flat = (abs(leaf.reshape(len(leaf), -1)) for leaf in params.values())
    largest_first = (-np.sort(-leaf, axis=1) for leaf in flat)
    return sum(leaf @ SORTED[: leaf.shape[1]] for leaf in largest_first)


def slope_dual(dual: Leaves, step: float) -> Leaves:
    """The residual of the prox: SciPy's isotonic regression of the sorted sizes."""
    del step

    def one(leaf: np.ndarray) -> np.ndarray:
        flat = leaf.ravel()
        order = np.argsort(-abs(flat), kind="stable")
        gaps = abs(flat)[order] - SORTED[: flat.size]
        kept = np.zeros(flat.size)
        if flat.size:
            kept[order] = np.maximum(isotonic_regression(gaps, increasing=False).x, 0)
        return leaf - (np.sign(flat) * kept).reshape(leaf.shape)

    return {name: one(leaf) for name, leaf in dual.items()}


def differences(params: Leaves, axis: int, depth: int) -> np.ndarray:
    """The sum of the sizes of repeated differences; `axis` is that of the leaf."""
    along = axis + 1 if axis >= 0 else axis
    kinks = (np.diff(leaf, n=depth, axis=along) for leaf in params.values())
    return sum(total(abs(leaf)) for leaf in kinks)


def lines_dual(dual: Leaves, axis: int, depth: int, size: float, l1: float) -> Leaves:
    """The nearest point of `{D' z + y: |z| <= size, |y| <= l1}`, line by line."""

    def one(line: np.ndarray) -> np.ndarray:
        rows = np.diff(np.eye(line.size), n=depth, axis=0) * size
        rows = np.concatenate([rows, np.eye(line.size) * l1]) if l1 else rows
        if not len(rows):
            return np.zeros_like(line)
        found = lsq_linear(rows.T, line, (-1, 1), "bvls", tol=1e-16, max_iter=10_000)
        return rows.T @ found.x

    return {
        name: np.apply_along_axis(one, axis, leaf) if leaf.size else leaf
        for name, leaf in dual.items()
    }


def lines_row(name: str, penalty: jaxreg.Penalty, depth: int, **facts) -> Row:
    """A row of `size` times the sizes of differences, and `l1` times those of entries.

    Duals of 0.3 pass from line end to line end: entries are coupled, and weights that
    span six decades carry the rounding of a heavy entry to a light one.
    """
    size, l1, axis = facts.pop("size"), facts.pop("l1", 0.0), penalty.axis

    def value(params: Leaves) -> np.ndarray:
        sizes = sum(total(abs(leaf)) for leaf in params.values())
        return size * differences(params, axis, depth) + l1 * sizes

    defaults = {
        "shapes": {"conv": (2, 2, 5), "line": (6,), "one": (1,), "empty": (0, 3)},
        "probe": {"kernel": (2,)},
        "tiny": {"kernel": (4,)},
        "stationarity_kind": "residual",
        "is_coupled": True,
        "moves_by_width": False,
        "rounding": 100.0,
    }
    return Row(
        name=name,
        penalty=penalty,
        value=value,
        conjugate_prox=lambda y, step: lines_dual(y, axis, depth, size, l1),
        **(defaults | facts),
    )


def planes_dual(dual: Leaves, size: float) -> Leaves:
    """The nearest point of `{D' z: |z| <= size}`, D the differences along two axes."""

    def one(leaf: np.ndarray) -> np.ndarray:
        points = np.eye(leaf.size).reshape(leaf.size, *leaf.shape)
        sides = (np.diff(points, axis=axis).reshape(leaf.size, -1) for axis in (1, 2))
        rows = np.concatenate([*sides], axis=1) * size
        bound = {"method": "bvls", "tol": 1e-16, "max_iter": 10_000}
        found = lsq_linear(rows, leaf.ravel(), (-1, 1), **bound)
        return (rows @ found.x).reshape(leaf.shape)

    return {name: one(leaf) if leaf.size else leaf for name, leaf in dual.items()}


FIRST = {"conv": (5, 2, 2), "line": (6,), "empty": (0, 3)}

ROWS = [
    Row(
        name="SLOPE",
        penalty=jaxreg.SLOPE(SORTED),
        shapes={"row": (1, 2), "line": (2,), "conv": (2, 1, 1), "empty": (0, 3)},
        probe={"kernel": (2,)},
        value=slope,
        conjugate_prox=slope_dual,
        varying_step=False,
        stationarity_kind="residual",
        strengths=("strengths",),
        is_coupled=True,
        moves_by_width=False,
        # The residual divides a difference of entries by the step.
        rounding=10.0,
    ),
    lines_row("TotalVariation", jaxreg.TotalVariation(0.3, axis=-1), 1, size=0.3),
    lines_row(
        "TotalVariation along the first axis",
        jaxreg.TotalVariation(0.3, axis=0),
        1,
        size=0.3,
        shapes=FIRST,
    ),
    lines_row(
        "FusedLasso",
        jaxreg.FusedLasso(0.3, 0.2, axis=-1),
        1,
        size=0.2,
        l1=0.3,
        varying_step=False,
        moves_by_width=True,
        strengths=("l1", "total_variation"),
    ),
    lines_row(
        "FusedLasso along the first axis",
        jaxreg.FusedLasso(0.3, 0.2, axis=0),
        1,
        size=0.2,
        l1=0.3,
        shapes=FIRST,
        varying_step=False,
        moves_by_width=True,
        strengths=("l1", "total_variation"),
    ),
]
ROWS += [
    Row(
        name="TotalVariation in the plane",
        penalty=jaxreg.TotalVariation(0.3, axis=(0, 1)),
        shapes={"image": (4, 3), "line": (1, 5), "empty": (0, 3)},
        probe={"kernel": (2, 1)},
        value=lambda params: (
            0.3 * (differences(params, 0, 1) + differences(params, 1, 1))
        ),
        conjugate_prox=lambda dual, step: planes_dual(dual, 0.3),
        varying_step=False,
        stationarity_kind="residual",
        is_coupled=True,
        moves_by_width=False,
        # The prox iterates: 1e-12 in float64, some hundreds of roundings in float32.
        rounding=1e4,
    ),
    lines_row(
        "TrendFilter",
        jaxreg.TrendFilter(0.3, order=1, axis=-1),
        2,
        size=0.3,
        varying_step=False,
        # The prox iterates: 1e-12 in float64, some hundreds of roundings in float32.
        rounding=1e4,
    ),
]
