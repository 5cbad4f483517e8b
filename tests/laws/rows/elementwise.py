"""Rows of the penalties of single entries, and of groups by the nonconvex ones."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

import jaxreg
from tests.laws.row import ELEMENTWISE, GROUPS, Leaves, Row, group_norms, total

Height = Callable[[np.ndarray], np.ndarray]


def huber(a: np.ndarray, strength: float, knot: float) -> np.ndarray:
    return strength * np.where(a <= knot, a**2 / 2, knot * (a - knot / 2))


def mcp(a: np.ndarray, strength: float, knot: float) -> np.ndarray:
    """Zhang's `lambda int_0^a (1 - t / (gamma lambda))_+ dt`, knot = gamma lambda."""
    return np.where(a <= knot, strength * (a - a**2 / (2 * knot)), strength * knot / 2)


def scad(a: np.ndarray, strength: float, knot: float, ratio: float) -> np.ndarray:
    """Fan and Li's three pieces in lambda = knot / ratio, scaled to `strength`."""
    lamb = knot / ratio
    middle = (2 * ratio * lamb * a - a**2 - lamb**2) / (2 * (ratio - 1))
    flat = lamb**2 * (ratio + 1) / 2
    pieces = np.where(a <= lamb, lamb * a, np.where(a <= knot, middle, flat))
    return strength / lamb * pieces


def log_sum(a: np.ndarray, strength: float, eps: float) -> np.ndarray:
    return strength * (np.log(a + eps) - np.log(eps))


def power(a: np.ndarray, strength: float, exponent: float) -> np.ndarray:
    return strength * a**exponent


def count(a: np.ndarray, strength: float) -> np.ndarray:
    return strength * (a != 0)


def transformed_l1(a: np.ndarray, strength: float, scale: float) -> np.ndarray:
    return strength * (scale + 1) * a / (scale + a)


def capped_l1(a: np.ndarray, strength: float, knot: float) -> np.ndarray:
    return strength * np.minimum(a, knot)


def to_grid(x: np.ndarray, strength: float, grid: tuple[float, ...]) -> np.ndarray:
    return strength * abs(x[..., None] - np.array(grid)).min(-1)


def chords(x: np.ndarray, strength: float, grid: tuple[float, ...]) -> np.ndarray:
    """`x^2 / 2` by straight lines; the convex function is the largest of the lines."""
    return strength * (lines(grid, x).max(-1) - min(q * q / 2 for q in grid))


def lines(grid: tuple[float, ...], x: np.ndarray) -> np.ndarray:
    wide = [2 * grid[0] - grid[1], *grid, 2 * grid[-1] - grid[-2]]
    pairs = itertools.pairwise(wide)
    return np.stack([(p + q) / 2 * x - p * q / 2 for p, q in pairs], -1)


def on_entries(height: Height) -> Callable[[Leaves], np.ndarray]:
    return lambda params: sum(total(height(leaf)) for leaf in params.values())


def on_sizes(height: Height) -> Callable[[Leaves], np.ndarray]:
    return on_entries(lambda leaf: height(abs(leaf)))


def on_rows(height: Height) -> Callable[[Leaves], np.ndarray]:
    """`n_g` times the height of a row's root mean square."""

    def value(params: Leaves) -> np.ndarray:
        found = np.zeros(())
        for leaf in params.values():
            norms, size = group_norms(leaf, (0, 1))
            found = found + size * total(height(norms / np.sqrt(max(size, 1))))
        return found

    return value


def huber_dual(dual: Leaves, step: float, strength: float, knot: float) -> Leaves:
    """The conjugate is `u^2 / (2 strength)` up to `strength knot`, then infinite."""
    limit = strength * knot

    def one(leaf: np.ndarray) -> np.ndarray:
        return np.clip(leaf / (1 + 1 / (strength * step)), -limit, limit)

    return {name: one(leaf) for name, leaf in dual.items()}


def chords_dual(
    dual: Leaves, step: float, strength: float, grid: tuple[float, ...]
) -> Leaves:
    """The conjugate is the largest of `q u - h(q)`, on the slopes that `h` has."""
    values = np.array(grid)
    ends = np.array([2 * grid[0] - grid[1], *grid, 2 * grid[-1] - grid[-2]])
    slopes = strength * (ends[1:] + ends[:-1]) / 2
    heights = strength * (values**2 / 2 - (values**2 / 2).min())

    def one(leaf: np.ndarray) -> np.ndarray:
        near = leaf[..., None]
        points = np.clip(near - values / step, slopes[:-1], slopes[1:])
        conjugate = (values * points[..., None] - heights).max(-1)
        best = (conjugate / step + (points - near) ** 2 / 2).argmin(-1)
        return np.take_along_axis(points, best[..., None], -1)[..., 0]

    return {name: one(leaf) for name, leaf in dual.items()}


def entries(name: str, penalty: jaxreg.Penalty, value: Any, **facts: Any) -> Row:
    """A row of a nonconvex penalty of entries, unless the facts differ."""
    shapes = {"shapes": ELEMENTWISE, "probe": {"kernel": (2,)}, "is_convex": False}
    return Row(name=name, penalty=penalty, value=value, **(shapes | facts))


def groups(name: str, penalty: jaxreg.Penalty, height: Height, **facts: Any) -> Row:
    """A row of a nonconvex penalty of the first axis' slices."""
    return Row(
        name=name,
        penalty=jaxreg.grouped(penalty, group_axis=0),
        shapes=GROUPS,
        probe={"kernel": (1, 2)},
        tiny={"kernel": (1, 3)},
        value=on_rows(height),
        is_convex=False,
        varying_step=False,
        **facts,
    )


GRID = (-1.2, 0.0, 0.9, 1.6)

ROWS = [
    entries(
        "Huber",
        jaxreg.Huber(0.3, knot=0.6),
        on_sizes(lambda a: huber(a, 0.3, 0.6)),
        conjugate_prox=lambda dual, step: huber_dual(dual, step, 0.3, 0.6),
        is_convex=True,
    ),
    entries("MCP", jaxreg.MCP(0.3, 1.3), on_sizes(lambda a: mcp(a, 0.3, 1.3))),
    entries(
        "MCP of a knot below all weights",
        jaxreg.MCP(0.3, 0.11),
        on_sizes(lambda a: mcp(a, 0.3, 0.11)),
    ),
    entries("SCAD", jaxreg.SCAD(0.3, 1.7), on_sizes(lambda a: scad(a, 0.3, 1.7, 3.7))),
    entries(
        "SCAD of a steep fall",
        jaxreg.SCAD(0.3, 0.9, ratio=1.1),
        on_sizes(lambda a: scad(a, 0.3, 0.9, 1.1)),
        # The step is capped at half the convexity bound, a width of 0.04.
        moves_by_width=False,
    ),
    entries(
        "LogSum", jaxreg.LogSum(0.3, 0.4), on_sizes(lambda a: log_sum(a, 0.3, 0.4))
    ),
    entries("LHalf", jaxreg.Lp(0.3, 0.5), on_sizes(lambda a: power(a, 0.3, 0.5))),
    entries("Lp", jaxreg.Lp(0.3, 0.7), on_sizes(lambda a: power(a, 0.3, 0.7))),
    entries(
        "Lp near L0",
        jaxreg.Lp(0.3, 0.1),
        on_sizes(lambda a: power(a, 0.3, 0.1)),
    ),
    entries(
        "Lp near L1",
        jaxreg.Lp(0.3, 0.85),
        on_sizes(lambda a: power(a, 0.3, 0.85)),
    ),
    entries("L0", jaxreg.L0(0.3), on_sizes(lambda a: count(a, 0.3))),
    entries(
        "TransformedL1",
        jaxreg.TransformedL1(0.3, 0.6),
        on_sizes(lambda a: transformed_l1(a, 0.3, 0.6)),
    ),
    entries(
        "CappedL1",
        jaxreg.CappedL1(0.3, 1.2),
        on_sizes(lambda a: capped_l1(a, 0.3, 1.2)),
    ),
    entries(
        "PiecewiseAffine",
        jaxreg.PiecewiseAffine.to_grid(0.3, GRID),
        on_entries(lambda x: to_grid(x, 0.3, GRID)),
    ),
    entries(
        "convex PiecewiseAffine",
        jaxreg.PiecewiseAffine.convex(0.3, GRID),
        on_entries(lambda x: chords(x, 0.3, GRID)),
        conjugate_prox=lambda dual, step: chords_dual(dual, step, 0.3, GRID),
        is_convex=True,
        # Its knots hold intervals, and it takes none of them to the next.
        moves_by_width=False,
    ),
    groups("grouped MCP", jaxreg.MCP(0.3, 1.3), lambda r: mcp(r, 0.3, 1.3)),
    groups("grouped L0", jaxreg.L0(0.3), lambda r: count(r, 0.3)),
    groups(
        "grouped SCAD",
        jaxreg.SCAD(0.3, 1.7),
        lambda r: scad(r, 0.3, 1.7, 3.7),
    ),
]
