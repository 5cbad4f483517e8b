"""Rows of penalties made from penalties, and of structured penalties."""

import dataclasses
import math
from typing import Any

import numpy as np

import jaxreg
from tests.laws.row import (
    ELEMENTWISE,
    GROUPS,
    Leaves,
    Row,
    constants,
    group_norms,
    total,
)
from tests.laws.rows.basic import clip, group_dual, group_lasso, huber, lasso, ridge

WEIGHTS = constants([0.0, 1.5])
GROUP_WEIGHTS = constants([[0.5, 2.0]])
LEAF_WEIGHTS = {"bias": constants(2.0), "kernel": constants([[0.5]])}
REFERENCES = {"bias": constants(0.75), "kernel": constants([[-0.5]])}
BOUND = 6.0


def mixed(params: Leaves, l1: float, l2: float) -> np.ndarray:
    return lasso(params, l1) + ridge(params, l2)


def weighted_lasso(params: Leaves, weights: dict[str, Any], l1: float) -> np.ndarray:
    return sum(l1 * total(abs(weights[n] * x)) for n, x in params.items())


def weighted_clip(dual: Leaves, weights: dict[str, Any], l1: float) -> Leaves:
    return {n: np.clip(y, -weights[n] * l1, weights[n] * l1) for n, y in dual.items()}


def with_weights(weights: Any) -> dict[str, Any]:
    return dict.fromkeys(("kernel", "scale"), weights)


def weighted_groups(params: Leaves) -> np.ndarray:
    (kernel,) = params.values()
    norms = np.sqrt((kernel**2).sum(1, keepdims=True))
    return 0.3 * math.sqrt(kernel.shape[1]) * total(GROUP_WEIGHTS * norms)


def weighted_groups_dual(dual: Leaves, step: float) -> Leaves:
    del step
    (kernel,) = dual.values()
    norms = np.sqrt((kernel**2).sum(0, keepdims=True))
    radius = 0.3 * math.sqrt(kernel.shape[0]) * GROUP_WEIGHTS
    return {"kernel": kernel * np.minimum(1, radius / np.where(norms > 0, norms, 1.0))}


def positive_part(leaves: Leaves) -> Leaves:
    return {name: np.maximum(leaf, 0) for name, leaf in leaves.items()}


def feasible_or_inf(params: Leaves, value: np.ndarray) -> np.ndarray:
    is_outside = sum(total((leaf < 0).astype(float)) for leaf in params.values()) > 0
    return np.where(is_outside, np.inf, value)


def shifted(params: Leaves, references: dict[str, Any]) -> Leaves:
    return {name: leaf - references[name] for name, leaf in params.items()}


def shifted_dual(
    dual: Leaves, step: float, references: dict[str, Any], l1: float, l2: float
) -> Leaves:
    """The conjugate gains the reference as a slope: its prox starts off by it."""
    start = {n: leaf - np.float64(references[n]) / step for n, leaf in dual.items()}
    return huber(start, step, l1, l2)


def everywhere(shapes: Any, number: float) -> dict[str, float]:
    return dict.fromkeys(shapes, number)


def huber_value(params: Leaves, l1: float, step: float) -> np.ndarray:
    """Huber's function, quadratic up to `l1 * step`."""

    def one(leaf: np.ndarray) -> np.ndarray:
        size, knot = abs(leaf), l1 * step
        return np.where(size <= knot, leaf**2 / (2 * step), l1 * (size - knot / 2))

    return sum(total(one(leaf)) for leaf in params.values())


def group_huber_value(params: Leaves, l1: float, step: float) -> np.ndarray:
    """Huber's function of the norm of each row."""
    (kernel,) = params.values()
    norms, size = group_norms(kernel, (0, 1))
    return huber_value({"kernel": norms}, l1 * math.sqrt(size), step)


def longer_dual(dual: Leaves, step: float, inner: Any, own: float) -> Leaves:
    """The conjugate gains `own |u|^2 / 2`: a longer step, from a shrunken point."""
    share = step / (step + own)
    return inner({n: leaf * share for n, leaf in dual.items()}, step + own)


def sparse_group(params: Leaves, axes: tuple[int, ...]) -> np.ndarray:
    return lasso(params, 0.2) + group_lasso(params, axes, 0.3)


def sparse_group_dual(dual: Leaves, step: float, axes: tuple[int, ...]) -> Leaves:
    """The nearest point of a box plus a ball: the part beyond the box, on the ball."""
    del step
    box = clip(dual, 1.0, 0.2)
    beyond = {name: leaf - box[name] for name, leaf in dual.items()}
    ball = group_dual(beyond, 1.0, axes, 0.3)
    return {name: leaf + ball[name] for name, leaf in box.items()}


def lassonet(params: Leaves) -> np.ndarray:
    """`sum_j ||skip_j||`, infinite where a first-layer weight exceeds its bound."""
    norms = np.sqrt((params["skip"] ** 2).sum(-1))
    first = params["first"].reshape(*norms.shape, -1)
    sizes = abs(first).max(-1)
    # Rounding of the bound itself.
    is_off = (sizes > BOUND * norms * (1 + 1e-14)).any(-1)
    value = norms.sum(-1) + 0.05 * total(abs(params["first"]))
    return np.where(is_off, np.inf, value)


WEIGHTED = Row(
    name="weighted L1",
    penalty=jaxreg.weighted(jaxreg.L1(0.3), WEIGHTS),
    shapes={"kernel": (3, 2), "scale": (2,)},
    probe={"kernel": (2,)},
    value=lambda params: weighted_lasso(params, with_weights(WEIGHTS), 0.3),
    conjugate_prox=lambda dual, step: weighted_clip(dual, with_weights(WEIGHTS), 0.3),
    moves_by_width=False,
    is_bound_to_tree=True,
)
SCALED = Row(
    name="scaled ElasticNet",
    penalty=jaxreg.scaled(jaxreg.ElasticNet(0.15, 0.1), 2.0),
    shapes=ELEMENTWISE,
    probe={"kernel": (2,)},
    value=lambda params: mixed(params, 0.3, 0.2),
    conjugate_prox=lambda dual, step: huber(dual, step, 0.3, 0.2),
    strengths=("factor",),
)
NONNEGATIVE = Row(
    name="nonnegative L1",
    penalty=jaxreg.nonnegative(jaxreg.L1(0.3)),
    shapes=ELEMENTWISE,
    probe={"kernel": (2,)},
    value=lambda params: feasible_or_inf(params, lasso(params, 0.3)),
    conjugate_prox=lambda dual, step: {n: np.minimum(y, 0.3) for n, y in dual.items()},
    # Nothing multiplies the sign: at strength 0 the prox is not the identity.
    strengths=(),
)
ANCHORED = Row(
    name="anchored ElasticNet",
    offset=0.8,
    penalty=jaxreg.anchored(jaxreg.ElasticNet(0.3, 0.2), 0.8),
    shapes=ELEMENTWISE,
    probe={"kernel": (2,)},
    value=lambda params: mixed(shifted(params, everywhere(params, 0.8)), 0.3, 0.2),
    conjugate_prox=lambda dual, step: shifted_dual(
        dual, step, everywhere(dual, 0.8), 0.3, 0.2
    ),
    keeps_zero=False,
    moves_by_width=False,
)
ENVELOPE = Row(
    name="envelope of L1",
    penalty=jaxreg.envelope(jaxreg.L1(0.3), 0.5),
    shapes=ELEMENTWISE,
    probe={"kernel": (2,)},
    value=lambda params: huber_value(params, 0.3, 0.5),
    conjugate_prox=lambda dual, step: longer_dual(
        dual, step, lambda y, longer: clip(y, longer, 0.3), 0.5
    ),
    is_linear_in_numbers=False,
    moves_by_width=False,
)
SPARSE_GROUP = Row(
    name="SparseGroupLasso",
    penalty=jaxreg.SparseGroupLasso(0.2, 0.3, group_axis=0),
    shapes=GROUPS,
    probe={"kernel": (1, 2)},
    tiny={"kernel": (2, 2)},
    value=lambda params: sparse_group(params, (0,)),
    conjugate_prox=lambda dual, step: sparse_group_dual(dual, step, (0,)),
    strengths=("l1", "group"),
)


def variant(row: Row, **changes: Any) -> Row:
    return dataclasses.replace(row, **changes)


ROWS = [
    WEIGHTED,
    variant(
        WEIGHTED,
        name="weighted GroupLasso",
        penalty=jaxreg.weighted(jaxreg.GroupLasso(0.3, group_axis=1), GROUP_WEIGHTS),
        shapes={"kernel": (5, 2)},
        probe={"kernel": (1, 2)},
        tiny={"kernel": (2, 2)},
        value=weighted_groups,
        conjugate_prox=weighted_groups_dual,
    ),
    variant(
        WEIGHTED,
        name="weighted by a tree",
        penalty=jaxreg.weighted(jaxreg.L1(0.3), LEAF_WEIGHTS),
        shapes={"bias": (3,), "kernel": (4, 3)},
        probe={"bias": (1,), "kernel": (1, 1)},
        value=lambda params: weighted_lasso(params, LEAF_WEIGHTS, 0.3),
        conjugate_prox=lambda dual, step: weighted_clip(dual, LEAF_WEIGHTS, 0.3),
        scope="tree",
    ),
    SCALED,
    NONNEGATIVE,
    variant(
        NONNEGATIVE,
        name="nonnegative SparseGroupLasso",
        penalty=jaxreg.nonnegative(jaxreg.SparseGroupLasso(0.2, 0.3, group_axis=0)),
        shapes={"kernel": (4, 5), "empty": (0, 3)},
        probe={"kernel": (1, 2)},
        tiny={"kernel": (2, 2)},
        value=lambda params: feasible_or_inf(params, sparse_group(params, (0,))),
        conjugate_prox=lambda dual, step: {
            name: np.minimum(dual[name], 0) + leaf
            for name, leaf in sparse_group_dual(positive_part(dual), step, (0,)).items()
        },
    ),
    ANCHORED,
    variant(
        ANCHORED,
        name="anchored to a tree",
        offset=0.8,
        penalty=jaxreg.anchored(jaxreg.ElasticNet(0.3, 0.2), REFERENCES),
        shapes={"bias": (3,), "kernel": (4, 3)},
        probe={"bias": (1,), "kernel": (1, 1)},
        value=lambda params: mixed(shifted(params, REFERENCES), 0.3, 0.2),
        conjugate_prox=lambda dual, step: shifted_dual(
            dual, step, REFERENCES, 0.3, 0.2
        ),
        scope="tree",
        is_bound_to_tree=True,
    ),
    ENVELOPE,
    variant(
        ENVELOPE,
        name="envelope of GroupLasso",
        penalty=jaxreg.envelope(jaxreg.GroupLasso(0.3, group_axis=0), 0.5),
        shapes={"kernel": (4, 3)},
        probe={"kernel": (1, 2)},
        tiny={"kernel": (2, 2)},
        value=lambda params: group_huber_value(params, 0.3, 0.5),
        conjugate_prox=lambda dual, step: longer_dual(
            dual, step, lambda y, longer: group_dual(y, longer, (0,), 0.3), 0.5
        ),
        # At strength 0 the squared rounding of a norm is left, and no number else.
        strengths=(),
    ),
    SPARSE_GROUP,
    variant(
        SPARSE_GROUP,
        name="SparseGroupLasso over 1",
        penalty=jaxreg.SparseGroupLasso(0.2, 0.3, group_axis=-1),
        shapes={"kernel": (5, 4)},
        probe={"kernel": (2, 1)},
        tiny={"kernel": (3, 1)},
        value=lambda params: sparse_group(params, (-1,)),
        conjugate_prox=lambda dual, step: sparse_group_dual(dual, step, (-1,)),
    ),
    Row(
        name="Hierarchical",
        penalty=jaxreg.Hierarchical(1.0, BOUND, skip=1, l1=0.05),
        shapes={"first": (5, 4), "skip": (5, 3)},
        probe={"first": (1, 1), "skip": (1, 1)},
        tiny={"first": (2, 2), "skip": (2, 1)},
        value=lassonet,
        is_convex=False,
        varying_step=False,
        scope="tree",
        stationarity_kind="residual",
        strengths=("strength", "l1"),
        is_coupled=True,
        moves_by_width=False,
        # The bound multiplies the rounding of the skip norm, the residual's step of
        # 0.05 divides it.
        rounding=100.0,
    ),
]
