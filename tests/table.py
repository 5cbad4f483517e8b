"""One row per penalty: an instance, what is true of it, and a slow reference.

The laws in test_laws*.py hold for every row; the facts of a row decide which apply. The
references are the textbook formulas in NumPy float64 and do not pass through jaxreg.
A new penalty is tested by adding its row.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import jaxreg
from jaxreg.rules import ByPath

Leaves = dict[str, np.ndarray]
Shapes = dict[str, tuple[int, ...]]

ELEMENTWISE = {"conv": (2, 2, 3, 4), "scale": (), "empty": (0, 3)}
GROUPS = {"conv": (3, 2, 2, 4), "empty": (0, 3), "hollow": (3, 0)}


@dataclasses.dataclass(frozen=True)
class Row:
    """One penalty under the laws.

    `shapes` are the leaves most laws run on, `probe` leaves with two entries in all, on
    which brute force is a dense grid. `value` gets leaves with a leading axis of
    points and returns one number per point.
    `conjugate_prox(y, step)` is `argmin_u h*(u) / step + |u - y|^2 / 2`, needed where
    the penalty is convex. `free` names the leaves that no rule catches.
    """

    name: str
    penalty: jaxreg.Penalty
    shapes: Shapes
    probe: Shapes
    value: Callable[[Leaves], np.ndarray]
    conjugate_prox: Callable[[Leaves, float], Leaves] | None = None
    is_convex: bool = True
    varying_step: bool = True
    scope: str = "leaf"
    stationarity_kind: str = "distance"
    is_linear_in_numbers: bool = True
    keeps_zero: bool = True
    free: tuple[str, ...] = ()

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

    def scaled(self, factor: float) -> jaxreg.Penalty:
        """The penalty with each of its numbers multiplied."""
        return jax.tree.map(lambda number: number * factor, self.penalty)


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


def lasso(params: Leaves, l1: float) -> np.ndarray:
    return sum(l1 * total(abs(leaf)) for leaf in params.values())


def ridge(params: Leaves, l2: float) -> np.ndarray:
    return sum(l2 * total(leaf**2) for leaf in params.values())


def group_lasso(params: Leaves, axes: tuple[int, ...], l1: float) -> np.ndarray:
    """`l1 sum_g sqrt(n_g) ||x_g||`; `axes` are those of the leaf."""
    shifted = tuple(axis + 1 if axis >= 0 else axis for axis in axes)
    value = np.zeros(())
    for leaf in params.values():
        norms, size = group_norms(leaf, (0, *shifted))
        value = value + l1 * math.sqrt(size) * total(norms)
    return value


def clip(dual: Leaves, step: float, l1: float) -> Leaves:
    """The conjugate of `l1 |x|_1` is the indicator of a box: its prox projects."""
    del step
    return {name: np.clip(leaf, -l1, l1) for name, leaf in dual.items()}


def shrunk(dual: Leaves, step: float, l2: float) -> Leaves:
    """The conjugate of `l2 |x|^2` is `|u|^2 / (4 l2)`."""
    return {name: leaf / (1 + 1 / (2 * l2 * step)) for name, leaf in dual.items()}


def huber(dual: Leaves, step: float, l1: float, l2: float) -> Leaves:
    """The conjugate of the elastic net is `max(|u| - l1, 0)^2 / (4 l2)`."""
    curve = 2 * l2 * step

    def one(leaf: np.ndarray) -> np.ndarray:
        outside = (curve * abs(leaf) + l1) / (1 + curve)
        return np.sign(leaf) * np.where(abs(leaf) <= l1, abs(leaf), outside)

    return {name: one(leaf) for name, leaf in dual.items()}


def group_dual(
    dual: Leaves, step: float, axes: tuple[int, ...], l1: float, l2: float = 0.0
) -> Leaves:
    """A function of the norm moves the norm alone; `l2 = 0` projects on a ball."""

    def one(leaf: np.ndarray) -> np.ndarray:
        norms, size = group_norms(leaf, axes)
        if l2:
            moved = huber({"norm": norms}, step, l1 * math.sqrt(size), l2)["norm"]
        else:
            moved = np.minimum(norms, l1 * math.sqrt(size))
        return leaf * moved / np.where(norms > 0, norms, 1.0)

    return {name: one(leaf) for name, leaf in dual.items()}


def mixed_value(params: Leaves) -> np.ndarray:
    """Groups of the columns of `embed`, a lasso on `kernel`, nothing on `bias`."""
    embed, kernel = {"embed": params["embed"]}, {"kernel": params["kernel"]}
    return group_lasso(embed, (1,), 0.3) + lasso(kernel, 0.2)


def mixed_dual(dual: Leaves, step: float) -> Leaves:
    free = {name: np.zeros_like(leaf) for name, leaf in dual.items()}
    embed = group_dual({"embed": dual["embed"]}, step, (1,), 0.3)
    return free | embed | clip({"kernel": dual["kernel"]}, step, 0.2)


def group_row(axis: Any, shapes: Shapes, probe: Shapes) -> Row:
    axes = axis if isinstance(axis, tuple) else (axis,)
    return Row(
        name=f"GroupLasso over {axis}",
        penalty=jaxreg.GroupLasso(0.3, group_axis=axis),
        shapes=shapes,
        probe=probe,
        value=lambda params: group_lasso(params, axes, 0.3),
        conjugate_prox=lambda dual, step: group_dual(dual, step, axes, 0.3),
    )


ROWS = [
    Row(
        name="L1",
        penalty=jaxreg.L1(0.3),
        shapes=ELEMENTWISE,
        probe={"kernel": (2,)},
        value=lambda params: lasso(params, 0.3),
        conjugate_prox=lambda dual, step: clip(dual, step, 0.3),
    ),
    Row(
        name="L2",
        penalty=jaxreg.L2(0.2),
        shapes=ELEMENTWISE,
        probe={"kernel": (2,)},
        value=lambda params: ridge(params, 0.2),
        conjugate_prox=lambda dual, step: shrunk(dual, step, 0.2),
    ),
    Row(
        name="ElasticNet",
        penalty=jaxreg.ElasticNet(0.3, 0.2),
        shapes=ELEMENTWISE,
        probe={"kernel": (2,)},
        value=lambda params: lasso(params, 0.3) + ridge(params, 0.2),
        conjugate_prox=lambda dual, step: huber(dual, step, 0.3, 0.2),
    ),
    group_row(0, GROUPS, {"kernel": (1, 2)}),
    group_row(1, {"kernel": (5, 4)}, {"kernel": (2, 1)}),
    group_row((0, -1), {"stack": (3, 2, 2, 4)}, {"w": (1, 2, 1)}),
    Row(
        name="grouped ElasticNet",
        penalty=jaxreg.grouped(jaxreg.ElasticNet(0.3, 0.2), group_axis=0),
        shapes=GROUPS,
        probe={"kernel": (1, 2)},
        value=lambda params: group_lasso(params, (0,), 0.3) + ridge(params, 0.2),
        conjugate_prox=lambda dual, step: group_dual(dual, step, (0,), 0.3, 0.2),
    ),
    Row(
        name="by_path",
        penalty=jaxreg.by_path(
            [
                (r"^embed$", jaxreg.GroupLasso(0.3, group_axis=1)),
                (r"^kernel$", jaxreg.L1(0.2)),
            ]
        ),
        shapes={"bias": (3,), "embed": (5, 4), "kernel": (4, 3)},
        probe={"embed": (1, 1), "kernel": (1,)},
        value=mixed_value,
        conjugate_prox=mixed_dual,
        free=("bias",),
    ),
]
