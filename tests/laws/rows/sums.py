"""Rows of sums of two penalties of different kinds."""

from typing import Any

import numpy as np

import jaxreg
from tests.laws.row import ELEMENTWISE, Leaves, Row, total
from tests.laws.rows.basic import clip, group_dual, group_lasso, lasso, ridge
from tests.laws.rows.constraints import on_leaves, onto_norms
from tests.laws.rows.order import differences, lines_dual
from tests.laws.rows.structure import (
    WEIGHTS,
    weighted_clip,
    weighted_lasso,
    with_weights,
)

RADIUS = 1.5


def in_ball(params: Leaves) -> Leaves:
    return on_leaves(lambda rows: onto_norms(rows, 0, RADIUS))(params)


def lasso_in_ball(params: Leaves) -> np.ndarray:
    nearest = in_ball(params)
    square = sum(total((params[name] - nearest[name]) ** 2) for name in params)
    # Far above rounding in float64, far below any move the laws make.
    return np.where(np.sqrt(square) < 1e-9, lasso(params, 0.3), np.inf)


def ball_dual(dual: Leaves, step: float) -> Leaves:
    """The primal point is what the box leaves of the input, projected on the ball."""
    box = clip(dual, step, 0.3)
    near = in_ball({name: step * (dual[name] - box[name])[None] for name in dual})
    return {name: leaf - near[name][0] / step for name, leaf in dual.items()}


def ridge_dual(dual: Leaves, step: float, inner: Any) -> Leaves:
    """The conjugate of a sum with `l2 |x|^2` is an envelope, whose prox this is."""
    longer = 1 / step + 2 * 0.2
    near = inner(dual, 1 / longer)
    return {n: y + (near[n] - y) / (step * longer) for n, y in dual.items()}


def weighted_group_dual(dual: Leaves) -> Leaves:
    """The nearest point of a box plus a ball: the part beyond the box, on the ball."""
    box = weighted_clip(dual, with_weights(WEIGHTS), 0.3)
    rest = {name: leaf - box[name] for name, leaf in dual.items()}
    ball = group_dual(rest, 1.0, (0,), 0.2)
    return {name: leaf + ball[name] for name, leaf in box.items()}


ROWS = [
    Row(
        name="L1 + L2Ball",
        penalty=jaxreg.L1(0.3) + jaxreg.L2Ball(RADIUS),
        shapes=ELEMENTWISE,
        probe={"kernel": (2,)},
        feasible=in_ball,
        value=lasso_in_ball,
        conjugate_prox=ball_dual,
        stationarity_kind="residual",
        # No strength multiplies the ball.
        strengths=(),
        is_coupled=True,
        moves_by_width=False,
        # The residual divides a difference of entries by the step.
        rounding=10.0,
    ),
    Row(
        name="weighted L1 + GroupLasso",
        penalty=jaxreg.weighted(jaxreg.L1(0.3), WEIGHTS)
        + jaxreg.GroupLasso(0.2, group_axis=0),
        shapes={"kernel": (5, 2)},
        probe={"kernel": (1, 2)},
        value=lambda params: (
            weighted_lasso(params, with_weights(WEIGHTS), 0.3)
            + group_lasso(params, (0,), 0.2)
        ),
        conjugate_prox=lambda y, step: weighted_group_dual(y),
        moves_by_width=False,
        is_bound_to_tree=True,
    ),
    Row(
        name="TotalVariation + L2",
        penalty=jaxreg.TotalVariation(0.3, axis=-1) + jaxreg.L2(0.2),
        shapes={"conv": (2, 2, 5), "line": (6,), "one": (1,), "empty": (0, 3)},
        probe={"kernel": (2,)},
        value=lambda params: 0.3 * differences(params, -1, 1) + ridge(params, 0.2),
        conjugate_prox=lambda y, step: ridge_dual(
            y, step, lambda y, step: lines_dual(y, -1, 1, 0.3, 0.0)
        ),
        stationarity_kind="residual",
        is_coupled=True,
        moves_by_width=False,
        rounding=100.0,
    ),
]
