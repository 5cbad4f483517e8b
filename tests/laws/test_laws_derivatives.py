"""Laws of derivatives by the input, the step and the numbers of a penalty."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy.optimize import nnls

from tests.laws.row import Row
from tests.laws.table import is_first_of_its_kind, rows_and_cases, rows_where

NEIGHBOURS = 160
# One compiled program for all points of a row.
POINTS_PER_CALL = 10
RADIUS = 1e-6

Vectors = np.ndarray
"""Leaves, step and numbers of the penalty, one vector per row."""


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Vectors of all that the prox of a row depends on."""

    row: Row
    varies: bool
    generator: np.random.Generator

    def vector(self, leaves: Any, step: Any) -> np.ndarray:
        penalty = jax.tree.map(np.float64, self.row.penalty)
        return np.asarray(ravel_pytree([leaves, step, penalty])[0])

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return self.row.few_entries

    @property
    def size(self) -> int:
        """The number of entries, which come first in a vector."""
        return sum(int(np.prod(shape)) for shape in self.shapes.values())

    def heights(self, vector: jax.Array) -> jax.Array:
        """A smooth function of the prox, and the value."""
        leaves, _, penalty = self._unravel(vector)
        out = []
        if self.row.has_prox:
            weights = jnp.arange(1.0, self.size + 1)
            out.append(jnp.sum(weights * self.prox(vector) ** 2))
        if not self.row.is_constraint:
            out.append(penalty.value(leaves))
        return jnp.stack(out)

    def prox(self, vector: jax.Array) -> jax.Array:
        leaves, step, penalty = self._unravel(vector)
        return ravel_pytree(penalty.prox(leaves, step))[0]

    def _unravel(self, vector: jax.Array) -> Any:
        leaves = {name: np.zeros(shape) for name, shape in self.shapes.items()}
        penalty = jax.tree.map(np.float64, self.row.penalty)
        template = [leaves, self.steps(np.ones), penalty]
        return ravel_pytree(template)[1](vector)

    def steps(self, make: Callable[[Any], Any]) -> Any:
        """One step, or one per entry."""
        if self.varies:
            return {name: make(shape) for name, shape in self.shapes.items()}
        return make(())

    def normal(self, scale: float) -> Any:
        draw = self.generator.normal
        return {name: scale * draw(size=s) for name, s in self.shapes.items()}

    def random(self, count: int) -> Vectors:
        """Entries of several sizes, steps over a decade."""
        scales = np.resize([0.1, 0.5, 1.0, 3.0], count)
        return np.stack([self._random(scale) for scale in scales])

    def _random(self, scale: float) -> np.ndarray:
        steps = self.steps(lambda shape: 10 ** self.generator.uniform(-0.5, 0.5, shape))
        return self.vector(self.normal(scale), steps)

    def at_thresholds(self, count: int) -> Vectors:
        """Zeros, ties, and entries at which numbers of the penalty are met exactly."""
        numbers = map(np.ravel, jax.tree.leaves(self.row.penalty))
        levels = np.concatenate([[1.0], *numbers])
        levels = levels[np.isfinite(levels)]
        sums = np.add.outer(levels, levels).ravel()
        levels = np.unique(
            np.concatenate([[0.0], levels, levels / 4, levels / 2, sums])
        )
        return np.stack([self._at_levels(levels, kind % 4) for kind in range(count)])

    def _at_levels(self, levels: np.ndarray, kind: int) -> np.ndarray:
        generator = self.generator
        steps = self.steps(lambda shape: 2.0 ** generator.integers(0, 2, shape))
        one_level = generator.choice(levels)

        def entries(shape: tuple[int, ...]) -> np.ndarray:
            signs = generator.choice([-1.0, 1.0], shape)
            if kind == 0:
                return signs * one_level
            found = signs * generator.choice(levels, shape)
            if kind == 1:
                return found * generator.integers(0, 2, shape)
            # A diagonal has singular values at levels.
            return found * np.eye(*shape) if kind == 2 and found.ndim == 2 else found

        leaves = {name: entries(shape) for name, shape in self.shapes.items()}
        scaled = jax.tree.map(np.multiply, leaves, steps if self.varies else leaves)
        return self.vector(scaled if self.varies else leaves, steps)

    def near(self, points: Vectors) -> np.ndarray:
        """Each point and its neighbours, closer along some coordinates than others."""
        shape = (len(points), NEIGHBOURS, points.shape[1])
        moves = self.generator.normal(size=shape)
        moves *= RADIUS * 10 ** self.generator.uniform(-1.5, 0, shape)
        # Numbers keep their signs, infinite bounds stay.
        others = np.where(np.isfinite(points), points, 0.0)[:, None, self.size :]
        moves[..., self.size :] *= others
        return np.concatenate([points[:, None], points[:, None] + moves], 1)


def in_calls(
    function: Callable[[jax.Array], Any], vectors: Vectors
) -> list[np.ndarray]:
    """The results for all vectors, from calls of one compiled size."""
    size = POINTS_PER_CALL * (NEIGHBOURS + 1)
    whole = np.resize(vectors, (-(-len(vectors) // size) * size, vectors.shape[1]))
    parts = [function(part) for part in np.split(whole, len(whole) // size)]
    return [np.concatenate(all_)[: len(vectors)] for all_ in zip(*parts, strict=True)]


def kinks(inputs: Inputs, jacobians: Callable[[Vectors], Any]) -> Vectors:
    """Both floats beside a jump of the Jacobian, by bisection of random segments."""
    count = POINTS_PER_CALL * (NEIGHBOURS + 1) // 4
    lower = inputs.random(count)
    upper = lower.copy()
    upper[:, : inputs.size] = inputs.random(count)[:, : inputs.size]
    at_lower, at_upper = (jacobians(ends)[1] for ends in (lower, upper))

    def change(one: np.ndarray, other: np.ndarray) -> np.ndarray:
        return abs(one - other).max((1, 2))

    for _ in range(54):  # Down to neighbouring floats.
        middle = lower + (np.nan_to_num(upper) - np.nan_to_num(lower)) / 2
        at_middle = jacobians(middle)[1]
        is_below = change(at_middle, at_lower) >= change(at_middle, at_upper)
        upper = np.where(is_below[:, None], middle, upper)
        lower = np.where(is_below[:, None], lower, middle)
        at_upper = np.where(is_below[:, None, None], at_middle, at_upper)
        at_lower = np.where(is_below[:, None, None], at_lower, at_middle)
    found = change(at_lower, at_upper) > 1e-3
    return np.concatenate([lower[found][:20], upper[found][:20]])


def are_smooth_in_pieces(
    near: np.ndarray, proxes: np.ndarray, jacobians: np.ndarray
) -> np.ndarray:
    """True for the points around which the prox neither jumps nor grows steep.

    Only there has a nonconvex prox a generalized Jacobian. Between two neighbours it
    rises by no more than the largest of the Jacobians allows.
    """
    norms = np.linalg.norm(np.nan_to_num(jacobians[:, 1:]), 2, axis=(2, 3))
    allowed = 1.1 * norms.max(1)[:, None]
    runs = np.linalg.norm(np.diff(np.nan_to_num(near), axis=1), axis=2)
    rises = np.linalg.norm(np.diff(proxes, axis=1), axis=2)
    is_steady = (rises <= allowed * runs + 1e-12).all(1)
    # A jump over RADIUS has larger ones; so has a tie of what is kept and dropped.
    is_bounded = norms.max(1) <= np.minimum(1e3, 3 * np.quantile(norms, 0.75, axis=1))
    return is_steady & is_bounded


def distance_to_hull(found: np.ndarray, near: np.ndarray) -> float:
    """The distance of one Jacobian to the convex hull of others."""
    if not (np.isfinite(found).all() and np.isfinite(near).all()):
        return np.inf
    columns, target = near.reshape(len(near), -1).T, found.ravel()
    scale = max(1.0, abs(columns).max())
    # The last equation says that the shares sum to 1.
    system = np.concatenate([columns / scale, 100 * np.ones((1, len(near)))])
    return nnls(system, np.append(target / scale, 100.0), maxiter=10_000)[1]


def is_measured(row: Row) -> bool:
    """One row of each kind; of a prox that iterates derivatives are no more exact."""
    return is_first_of_its_kind(row) and row.penalty.facts.prox_tolerance == 0


@rows_and_cases(
    "steps",
    ("one", "varying"),
    lambda row, steps: (
        is_measured(row)
        and row.has_prox
        and (row.varying_step if steps == "varying" else row.couples_entries)
    ),
)
def test_the_jacobian_of_prox_is_a_generalized_jacobian(
    row: Row, steps: str, x64
) -> None:
    """An element of Clarke's: near one of a neighbour, or in their convex hull.

    By the input, the step and the penalty's numbers at once, so that all are the
    derivatives of the same piece. Where it is not so: UnitNorm on the sphere had the
    identity, LInf 0 for entries of 0.
    """
    inputs = Inputs(row, steps == "varying", np.random.default_rng(0))
    pair = jax.jit(jax.vmap(lambda v: (inputs.prox(v), jax.jacobian(inputs.prox)(v))))

    def jacobians(vectors: Vectors) -> list[np.ndarray]:
        return in_calls(pair, vectors)

    points = np.concatenate([inputs.random(200), inputs.at_thresholds(60)])
    # On the boundary of a set; with the zeros of a prox.
    proxes = points[:40].copy()
    proxes[:, : inputs.size] = jacobians(points[:40])[0]
    zeros = points[:2].copy()
    zeros[:, : inputs.size] = 0.0
    points = np.concatenate([points, proxes, zeros, kinks(inputs, jacobians)])

    near = inputs.near(points)
    out, slopes = (
        x.reshape(*near.shape[:2], *x.shape[1:])
        for x in jacobians(near.reshape(-1, near.shape[-1]))
    )
    counts = np.full(len(points), True)
    if not row.is_convex:
        counts = are_smooth_in_pieces(near, out, slopes)
        # At 0 all of a leaf is tied, and TopK is not Lipschitz in steps that vary.
        counts &= points[:, : inputs.size].any(1)
    # All but those close to a jump.
    assert counts[:200].mean() > 0.9
    for index in np.flatnonzero(counts):
        found, others = slopes[index, 0], slopes[index, 1:]
        scale = max(1.0, abs(others).max())
        nearest = abs(others - found).max((1, 2)).min() / scale
        if not nearest <= 1e-3:
            # Of equal singular values the neighbours are a continuum of pieces, whose
            # hull 160 of them fill up to 0.005.
            assert distance_to_hull(found, others) <= 1e-2, points[index]


@rows_where(is_measured)
def test_second_derivatives_are_right_where_they_exist(row: Row, x64) -> None:
    """Those of the value and of a smooth function of the prox; else they are finite."""
    inputs = Inputs(row, row.varying_step, np.random.default_rng(0))
    points = np.concatenate([inputs.random(40), inputs.at_thresholds(40)])
    near = np.nan_to_num(inputs.near(points))
    directions = (near[:, 1:10] - near[:, :1]) / RADIUS
    slopes = jax.jit(jax.vmap(jax.jacobian(inputs.heights)))

    def bend(vector: jax.Array, direction: jax.Array) -> jax.Array:
        return jax.jvp(jax.jacobian(inputs.heights), (vector,), (direction,))[1]

    def quotient(move: np.ndarray) -> np.ndarray:
        size = 1e-5
        return np.asarray(slopes(points + size * move) - slopes(points)) / size

    along = directions[:, 0]
    found = np.asarray(jax.jit(jax.vmap(bend))(points, along))
    assert np.isfinite(found).all()
    expected = (quotient(along) - quotient(-along)) / 2
    scale = np.maximum(1.0, abs(found).max(2, keepdims=True))

    def is_near(other: np.ndarray, slack: float) -> np.ndarray:
        return (abs(other - expected) <= slack * scale).all(2)

    # One-sided quotients are linear up to 1e-5 of curvature where there is no kink.
    is_smooth = is_near(quotient(along), 3e-4)
    for move in directions[:, 1:].swapaxes(0, 1):
        is_smooth &= is_near(quotient(along + move) - quotient(move), 3e-4)
    # All but kinks and where quotients are too rough, as for Lp near its jump.
    assert is_smooth[:40].mean() > 0.5
    wrong = is_smooth & ~is_near(found, 1e-3)
    assert not wrong.any(), points[wrong.any(1)]
