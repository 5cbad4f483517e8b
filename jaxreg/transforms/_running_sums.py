"""Running sums of gradients and the prox of them, for `dual_average` and `ftrl`.

Their parameters are the prox of the sums, not of the previous parameters.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxreg._core.checks import check_numbers, check_prox
from jaxreg._core.messages import shown
from jaxreg._core.penalty import Number, Penalty, Tree, wide_dtype, widened
from jaxreg.rules.by_path import Leaves
from jaxreg.transforms._leaves import (
    NEW_STATE,
    check_gradients,
    check_rate,
    check_schedule,
    read_update,
)


class Arrays(NamedTuple):
    """The leaves of an update, their gradients (or None) and their running sums."""

    leaves: Leaves
    grads: list[jax.Array | None]
    sums: list[list[jax.Array]]


def check_arguments(
    transform: str, learning_rate: object, penalty: Penalty, schedule: object
) -> None:
    """Raises if the penalty is not convex or has no prox, or on a bad schedule."""
    check_numbers(penalty, learning_rate=learning_rate)
    check_rate(transform, learning_rate)
    check_prox(transform, penalty)
    if not penalty.facts.is_convex:
        raise ValueError(
            f"{transform}: {shown(penalty)} is not convex. The step of the prox grows "
            "with the step count, and a prox of such a step minimises the convex hull "
            "of the penalty. Allowed are convex penalties; take jaxreg.regularize"
        )
    check_schedule(transform, schedule)


def number_dtype(params: Tree) -> jnp.dtype:
    """The widest real dtype of the running sums, for the scalars beside them."""
    dtypes = [wide_dtype(leaf) for leaf in jax.tree.leaves(params)]
    return jnp.finfo(jnp.result_type(jnp.float32, *dtypes)).dtype


def read(
    transform: str,
    penalty: Penalty,
    updates: Tree,
    params: Tree | None,
    sums: tuple[Tree, ...],
) -> Arrays:
    """Returns the arrays of an update, after validation."""
    leaves, grads, columns = read_update(transform, penalty, updates, params, sums)
    for index, leaf in enumerate(leaves.leaves):
        for running_sum in (column[index] for column in columns):
            if running_sum.shape != leaf.shape:
                raise ValueError(
                    f"{transform}: the state holds a sum of shape {running_sum.shape} "
                    f"for leaf {leaves.names[index]!r} of shape {leaf.shape}; "
                    f"{NEW_STATE}"
                )
    check_gradients(transform, leaves, grads)
    grads = [None if grad is None else widened(grad) for grad in grads]
    return Arrays(leaves, grads, columns)


def prox_moves(
    arrays: Arrays,
    points: list[jax.Array],
    steps: list[jax.Array],
    momentum: Number = 0.0,
) -> list[jax.Array | None]:
    """Updates of `1 - momentum` times the way to the prox of the points.

    They have the dtype of their leaf. Free leaves move towards their point; a leaf
    without a gradient gets None.
    """
    targets = list(points)
    for part in arrays.leaves.parts:
        proxes = part.penalty.prox(part.pick(points), part.pick(steps))
        for index, prox in zip(part.indices, proxes, strict=True):
            targets[index] = prox
    moves: list[jax.Array | None] = []
    rows = zip(arrays.leaves.leaves, arrays.grads, targets, strict=True)
    for leaf, grad, target in rows:
        move = (1 - momentum) * (target - widened(leaf))
        moves.append(None if grad is None else move.astype(leaf.dtype))
    return moves
