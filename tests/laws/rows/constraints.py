"""Rows of the constraints on entries, sums, norms and counts, and of the maximum norm.

The references sort, which jaxreg does not.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import jaxreg
from tests.laws.row import ELEMENTWISE, GROUPS, Leaves, Row, Shapes

PAIR = {"kernel": (2,)}
OnRows = Callable[[np.ndarray], np.ndarray]


def on_groups(on_rows: OnRows, leaf: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """`on_rows` with a row for each point and group; `axes` do not count the points."""
    if not leaf.size:
        return leaf
    kept = [0, *(axis % (leaf.ndim - 1) + 1 for axis in axes)]
    order = kept + [axis for axis in range(leaf.ndim) if axis not in kept]
    front = np.transpose(leaf, order)
    size = math.prod(front.shape[len(kept) :])
    found = on_rows(front.reshape(-1, size)).reshape(front.shape)
    return np.transpose(found, np.argsort(order))


def on_leaves(on_rows: OnRows, axes: tuple[int, ...] = ()) -> Callable[[Leaves], Any]:
    def project(params: Leaves) -> Leaves:
        return {name: on_groups(on_rows, leaf, axes) for name, leaf in params.items()}

    return project


def onto_simplex(rows: np.ndarray, total: float) -> np.ndarray:
    """Sort and shift, as in Duchi et al. 2008, figure 1."""
    falling = -np.sort(-rows, axis=1)
    excess = np.cumsum(falling, axis=1) - total
    place = np.arange(1, rows.shape[1] + 1)
    count = np.sum(falling * place > excess, axis=1)
    level = np.take_along_axis(excess, count[:, None] - 1, 1) / count[:, None]
    return np.maximum(rows - level, 0)


def onto_l1_ball(rows: np.ndarray, radius: float) -> np.ndarray:
    is_outside = abs(rows).sum(1, keepdims=True) > radius
    shrunk = np.sign(rows) * onto_simplex(abs(rows), radius)
    return np.where(is_outside, shrunk, rows)


def onto_norms(rows: np.ndarray, lower: float, upper: float) -> np.ndarray:
    """Zeros go to equal entries, as they may go anywhere."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    flat = np.full(rows.shape, rows.shape[1] ** -0.5)
    unit = np.where(norms > 0, rows / np.where(norms > 0, norms, 1), flat)
    return np.where((norms >= lower) & (norms <= upper), rows, 0) + np.where(
        norms < lower, lower * unit, np.where(norms > upper, upper * unit, 0)
    )


def largest(rows: np.ndarray, count: int) -> np.ndarray:
    """A stable sort leaves equal entries in order."""
    order = np.argsort(-abs(rows), axis=1, kind="stable")
    kept = np.zeros(rows.shape, bool)
    np.put_along_axis(kept, order[:, :count], True, 1)
    return np.where(kept, rows, 0)


def largest_share(rows: np.ndarray, share: float) -> np.ndarray:
    return largest(rows, round(share * rows.shape[1]))


def largest_of_tree(params: Leaves, count: int) -> Leaves:
    flat = {name: leaf.reshape(len(leaf), -1) for name, leaf in params.items()}
    kept = largest(np.concatenate([*flat.values()], axis=1), count)
    ends = np.cumsum([leaf.shape[1] for leaf in flat.values()])[:-1]
    pieces = zip(params.items(), np.split(kept, ends, axis=1), strict=True)
    return {name: piece.reshape(leaf.shape) for (name, leaf), piece in pieces}


def largest_in_blocks(params: Leaves, n: int, m: int, axis: int) -> Leaves:
    def one(leaf: np.ndarray) -> np.ndarray:
        last = np.moveaxis(leaf, axis, -1)
        blocks = largest(last.reshape(-1, m), n).reshape(last.shape)
        return np.moveaxis(blocks, -1, axis)

    return {name: one(leaf) for name, leaf in params.items()}


def constraint(
    name: str,
    penalty: jaxreg.Penalty,
    project: Callable[[Leaves], Leaves],
    shapes: Shapes = ELEMENTWISE,
    probe: Shapes = PAIR,
    **facts: Any,
) -> Row:
    return Row(
        name=name,
        penalty=penalty,
        shapes=shapes,
        probe=probe,
        project=project,
        feasible=project,
        moves_by_width=False,
        **({"stationarity_kind": "residual"} | facts),
    )


def maximum_norm(params: Leaves, axes: tuple[int, ...]) -> np.ndarray:
    def one(leaf: np.ndarray) -> np.ndarray:
        if not leaf.size:
            return np.zeros(len(leaf))
        highest = on_groups(
            lambda rows: abs(rows).max(1, keepdims=True) + 0 * rows, leaf, axes
        )
        return 0.3 * highest.reshape(len(leaf), -1).sum(1)

    return sum(one(leaf) for leaf in params.values())


def linf_row(axis: Any, shapes: Shapes, probe: Shapes, **facts: Any) -> Row:
    axes = () if axis is None else (axis,)

    def dual(leaves: Leaves, step: float) -> Leaves:
        del step
        ball = on_leaves(lambda rows: onto_l1_ball(rows, 0.3 * rows.shape[1]), axes)
        found = ball({name: leaf[None] for name, leaf in leaves.items()})
        return {name: leaf[0] for name, leaf in found.items()}

    return Row(
        name="LInf" if axis is None else f"LInf over {axis}",
        penalty=jaxreg.LInf(0.3, group_axis=axis),
        shapes=shapes,
        probe=probe,
        value=lambda params: maximum_norm(params, axes),
        conjugate_prox=dual,
        is_coupled=True,
        **facts,
    )


def in_groups(name: str, penalty: Any, on_rows: OnRows, **facts: Any) -> Row:
    """A variant with a group for each index of axis 0."""
    return constraint(
        f"{name} over 0",
        penalty,
        on_leaves(on_rows, (0,)),
        shapes=GROUPS,
        probe={"kernel": (1, 2)},
        tiny={"kernel": (2, 2)},
        **facts,
    )


FOUR = {"tiny": {"kernel": (4,)}}
COUPLED = {"is_coupled": True}
JUMPS = {"is_convex": False, "stationarity_kind": "normal cone"}
SPHERE = {"is_convex": False, "varying_step": False, "keeps_zero": False}

ROWS = [
    constraint(
        "NonNegative",
        jaxreg.NonNegative(),
        on_leaves(lambda rows: np.maximum(rows, 0)),
        stationarity_kind="normal cone",
    ),
    constraint(
        "Box",
        jaxreg.Box(-0.1, np.inf),
        on_leaves(lambda rows: np.maximum(rows, -0.1)),
    ),
    constraint(
        "Box away from zero",
        jaxreg.Box(0.1, 0.6),
        on_leaves(lambda rows: np.clip(rows, 0.1, 0.6)),
        keeps_zero=False,
    ),
    constraint(
        "L1Ball",
        jaxreg.L1Ball(1.5),
        on_leaves(lambda rows: onto_l1_ball(rows, 1.5)),
        **COUPLED,
        **FOUR,
    ),
    in_groups(
        "L1Ball",
        jaxreg.L1Ball(1.5, group_axis=0),
        lambda rows: onto_l1_ball(rows, 1.5),
        **COUPLED,
    ),
    constraint(
        "Simplex",
        jaxreg.Simplex(1.5),
        on_leaves(lambda rows: onto_simplex(rows, 1.5)),
        keeps_zero=False,
        **COUPLED,
        **FOUR,
    ),
    in_groups(
        "Simplex",
        jaxreg.Simplex(1.5, group_axis=0),
        lambda rows: onto_simplex(rows, 1.5),
        keeps_zero=False,
        **COUPLED,
    ),
    constraint(
        "L2Ball",
        jaxreg.L2Ball(1.5),
        on_leaves(lambda rows: onto_norms(rows, 0, 1.5)),
        **COUPLED,
        **FOUR,
    ),
    in_groups(
        "L2Ball",
        jaxreg.L2Ball(1.5, group_axis=0),
        lambda rows: onto_norms(rows, 0, 1.5),
        **COUPLED,
    ),
    constraint(
        "MinMaxNorm",
        jaxreg.MinMaxNorm(1.2, 1.6),
        on_leaves(lambda rows: onto_norms(rows, 1.2, 1.6)),
        **SPHERE,
        **FOUR,
    ),
    in_groups(
        "MinMaxNorm",
        jaxreg.MinMaxNorm(1.2, 1.6, group_axis=0),
        lambda rows: onto_norms(rows, 1.2, 1.6),
        **SPHERE,
    ),
    constraint(
        "UnitNorm",
        jaxreg.UnitNorm(),
        on_leaves(lambda rows: onto_norms(rows, 1, 1)),
        **SPHERE,
        **FOUR,
    ),
    in_groups(
        "UnitNorm",
        jaxreg.UnitNorm(group_axis=0),
        lambda rows: onto_norms(rows, 1, 1),
        **SPHERE,
    ),
    constraint(
        "TopK",
        jaxreg.TopK(1),
        on_leaves(lambda rows: largest(rows, 1)),
        **JUMPS,
        **FOUR,
    ),
    constraint(
        "TopK by share",
        jaxreg.TopK(fraction=0.5),
        on_leaves(lambda rows: largest_share(rows, 0.5)),
        **JUMPS,
        **FOUR,
    ),
    constraint(
        "TopK over the tree",
        jaxreg.TopK(1, scope="tree"),
        lambda params: largest_of_tree(params, 1),
        probe={"bias": (1,), "kernel": (1,)},
        scope="tree",
        **JUMPS,
    ),
    constraint(
        "NM",
        jaxreg.NM(1, 2),
        lambda params: largest_in_blocks(params, 1, 2, -2),
        shapes={"conv": (2, 3, 4, 5), "kernel": (6, 2), "empty": (0, 3)},
        probe={"kernel": (2, 1)},
        **JUMPS,
        tiny={"kernel": (4, 1)},
    ),
    linf_row(None, ELEMENTWISE, PAIR, **FOUR),
    linf_row(0, GROUPS, {"kernel": (1, 2)}, tiny={"kernel": (2, 3)}),
]
