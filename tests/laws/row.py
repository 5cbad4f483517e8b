"""Rows of the table of penalties, and helpers to write one."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import jaxreg
from jaxreg.rules.by_path import ByPath

Leaves = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]

ELEMENTWISE = {"conv": (2, 2, 3, 4), "scale": (), "empty": (0, 3)}
GROUPS = {"conv": (3, 2, 2, 4), "empty": (0, 3), "hollow": (3, 0)}


def constants(values: Any) -> np.ndarray:
    """Numbers of a row, exact in float32: JAX 0.10 mixes up buffers of float64."""
    return np.asarray(values, np.float32)


@dataclasses.dataclass(frozen=True)
class Row:
    """One penalty or constraint under the laws.

    `shapes` are the leaves most laws run on, `probe` leaves with two entries in all, on
    which brute force is a dense grid. `value` gets leaves with a leading axis of
    points and returns one number per point.
    `conjugate_prox(y, step)` is `argmin_u h*(u) / step + |u - y|^2 / 2`, needed where
    the penalty is convex. `free` names the leaves that no rule catches.

    A constraint gives in place of both `project`, the nearest point of the set, and
    `feasible`, a continuous map of every point onto the set on which brute force walks;
    both get and return leaves with a leading axis of points. A sum with a constraint
    gives `feasible` beside its `value`.

    `strengths` names the numbers that multiply the penalty. `is_coupled` says that an
    entry's prox may round as the largest entry of its leaf does; of a prox that is not
    `is_continuous`, float32 may take another of two nearest points. `rounding`
    multiplies the tolerances of the laws, with the reason beside the row; `offset` is
    the size of numbers that the penalty adds to entries, and rounds with them.
    `moves_by_width` is whether the prox with `step_for(w)` takes a leaf full of `2 w`
    to one full of `w`, or, where not convex, just zeroes a leaf full of `w`.
    `is_bound_to_tree` marks a penalty that holds arrays for these very leaves.
    `tiny` are leaves of at most six entries for the laws of derivatives, where the two
    of `probe` show too little of what an entry does to another.
    """

    name: str
    penalty: jaxreg.Penalty
    shapes: Shapes
    probe: Shapes
    value: Callable[[Leaves], np.ndarray] | None = None
    conjugate_prox: Callable[[Leaves, float], Leaves] | None = None
    project: Callable[[Leaves], Leaves] | None = None
    feasible: Callable[[Leaves], Leaves] | None = None
    is_convex: bool = True
    varying_step: bool = True
    scope: str = "leaf"
    stationarity_kind: str = "distance"
    strengths: tuple[str, ...] = ("strength", "l1", "l2")
    is_linear_in_numbers: bool = True
    keeps_zero: bool = True
    is_coupled: bool = False
    is_continuous: bool = True
    moves_by_width: bool = True
    rounding: float = 1.0
    offset: float = 0.0
    free: tuple[str, ...] = ()
    is_bound_to_tree: bool = False
    tiny: Shapes | None = None

    @property
    def couples_entries(self) -> bool:
        return not self.penalty.facts.is_separable

    @property
    def few_entries(self) -> Shapes:
        return self.tiny or self.probe

    @property
    def is_constraint(self) -> bool:
        return self.project is not None

    @property
    def has_prox(self) -> bool:
        return self.penalty.facts.has_prox

    def height(self, points: Leaves) -> np.ndarray:
        """The textbook value at each point; of a constraint 0 or infinity."""
        if self.value is not None:
            return self.value(points)
        nearest = self.project(points)
        square = sum(total((points[n] - nearest[n]) ** 2) for n in points)
        # Far above rounding in float64, far below any move the laws make.
        return np.where(np.sqrt(square) < 1e-9, 0.0, np.inf)

    def dual(self, dual: Leaves, step: float) -> Leaves:
        """The prox of the conjugate, for Moreau's identity."""
        if self.conjugate_prox is not None:
            return self.conjugate_prox(dual, step)
        primal = {name: step * leaf[None] for name, leaf in dual.items()}
        nearest = self.project(primal)
        return {n: leaf - nearest[n][0] / step for n, leaf in dual.items()}

    def params(self, seed: int, shapes: Shapes | None = None) -> Leaves:
        """Normal entries; the first index of every axis is zero, another is tied."""
        generator = np.random.default_rng(seed)
        leaves = {
            name: np.asarray(generator.normal(size=shape))
            for name, shape in (shapes or self.shapes).items()
        }
        for leaf in leaves.values():
            for axis in range(leaf.ndim):
                if leaf.shape[axis] > 2:
                    along = np.moveaxis(leaf, axis, 0)
                    along[0], along[1] = 0.0, along[2]
        return leaves

    def generic(self, seed: int) -> Leaves:
        """Positive entries, no two alike: a point where every penalty is smooth."""
        return self.steps(seed, 1)

    def full(self, entry: float) -> Leaves:
        return {name: np.full(shape, entry) for name, shape in self.shapes.items()}

    def steps(self, seed: int, decades: float, shapes: Shapes | None = None) -> Leaves:
        """Per-coordinate steps, spread log-uniformly about 1."""
        generator = np.random.default_rng(seed)
        half = decades / 2
        return {
            name: np.asarray(10.0 ** generator.uniform(-half, half, shape))
            for name, shape in (shapes or self.shapes).items()
        }

    def step_for(self, width: float, params: Leaves) -> Any:
        if isinstance(self.penalty, ByPath):
            return self.penalty.step_for(width, params)
        return self.penalty.step_for(width)

    def scaled(self, factor: Any) -> jaxreg.Penalty:
        """The penalty with each of its strengths multiplied."""
        return self._on_strengths(lambda number: number * factor, lambda number: number)

    def grid(self, factors: np.ndarray) -> tuple[jaxreg.Penalty, Any]:
        """One penalty for all factors, and the axes of `jax.vmap` over it."""
        stacked = self._on_strengths(
            lambda number: np.multiply.outer(np.float32(factors), np.float32(number)),
            lambda number: number,
        )
        return stacked, self._on_strengths(lambda number: 0, lambda number: None)

    @property
    def has_strength(self) -> bool:
        found = self._on_strengths(lambda number: True, lambda number: False)
        return any(jax.tree.leaves(found))

    def _on_strengths(
        self, strength: Callable[[Any], Any], other: Callable[[Any], Any]
    ) -> Any:
        def one(path: Any, number: Any) -> Any:
            is_strength = getattr(path[-1], "name", None) in self.strengths
            return strength(number) if is_strength else other(number)

        return jax.tree_util.tree_map_with_path(one, self.penalty)


def cast(params: Leaves, dtype: Any) -> dict[str, jax.Array]:
    return {name: jax.numpy.asarray(leaf, dtype) for name, leaf in params.items()}


def total(leaf: np.ndarray) -> np.ndarray:
    """The sum over all but the leading axis of points."""
    return leaf.reshape(len(leaf), math.prod(leaf.shape[1:])).sum(1)


def group_norms(leaf: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """Norms of the groups along `axes`, kept as axes of length 1, and the size."""
    indexing = {axis % leaf.ndim for axis in axes}
    within = tuple(axis for axis in range(leaf.ndim) if axis not in indexing)
    size = math.prod(leaf.shape[axis] for axis in within)
    return np.sqrt((leaf**2).sum(within, keepdims=True)), size
