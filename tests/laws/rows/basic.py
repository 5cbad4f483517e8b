"""Rows of L1, L2, the elastic net, the group lasso, and of rules."""

import math
from typing import Any

import numpy as np

import jaxreg
from tests.laws.row import ELEMENTWISE, GROUPS, Leaves, Row, Shapes, group_norms, total


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


def pairs_of_rows(leaf: np.ndarray) -> np.ndarray:
    """Blocks of two rows and all columns, one per last index, as axes 0 and 3."""
    return leaf.reshape(*leaf.shape[:-3], leaf.shape[-3] // 2, 2, *leaf.shape[-2:])


def in_blocks(params: Leaves) -> np.ndarray:
    cut = {name: pairs_of_rows(leaf) for name, leaf in params.items()}
    return group_lasso(cut, (0, 3), 0.3)


def blocks_dual(dual: Leaves, step: float) -> Leaves:
    cut = {name: pairs_of_rows(leaf) for name, leaf in dual.items()}
    found = group_dual(cut, step, (0, 3), 0.3)
    return {name: found[name].reshape(leaf.shape) for name, leaf in dual.items()}


def group_row(axis: Any, shapes: Shapes, probe: Shapes, tiny: Shapes) -> Row:
    axes = axis if isinstance(axis, tuple) else (axis,)
    return Row(
        name=f"GroupLasso over {axis}",
        penalty=jaxreg.GroupLasso(0.3, group_axis=axis),
        shapes=shapes,
        probe=probe,
        tiny=tiny,
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
    group_row(0, GROUPS, {"kernel": (1, 2)}, {"kernel": (2, 2)}),
    group_row(1, {"kernel": (5, 4)}, {"kernel": (2, 1)}, {"kernel": (3, 1)}),
    group_row((0, -1), {"stack": (3, 2, 2, 4)}, {"w": (1, 2, 1)}, {"w": (1, 2, 2)}),
    Row(
        name="GroupLasso in blocks",
        penalty=jaxreg.GroupLasso(0.3, group_axis=jaxreg.Blocks((2, None, 1))),
        shapes={"kernel": (6, 2, 4)},
        probe={"kernel": (2, 1, 1)},
        value=in_blocks,
        conjugate_prox=blocks_dual,
    ),
    Row(
        name="grouped ElasticNet",
        penalty=jaxreg.grouped(jaxreg.ElasticNet(0.3, 0.2), group_axis=0),
        shapes=GROUPS,
        probe={"kernel": (1, 2)},
        tiny={"kernel": (2, 2)},
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
