"""What `dual_average` and `ftrl` share: gradients summed over all steps, and a prox.

Their parameters are the prox of the sums so far, and not of the parameters before.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxreg._core.checks import check_numbers, check_params, check_prox
from jaxreg._core.penalty import Penalty, Tree, flatten_like, wide_dtype, widened
from jaxreg.rules import by_path as rules
from jaxreg.transforms._leaves import NEW_STATE, check_schedule, check_updates


class Arrays(NamedTuple):
    """The arrays of an update by the place of their leaf; a gradient may be None."""

    leaves: list[jax.Array]
    grads: list[Any]
    sums: list[list[Any]]


def check_arguments(transform: str, penalty: Penalty, schedule: Any) -> None:
    """Refuses what no sum over all steps can work with."""
    check_numbers(penalty)
    check_prox(transform, penalty)
    if not penalty.is_convex:
        raise ValueError(
            f"{transform}: {penalty!r} is not convex. The step of the prox grows with "
            "the step count, and a prox of such a step minimises the convex hull of "
            "the penalty. Allowed are convex penalties; take jaxreg.regularize"
        )
    check_schedule(transform, schedule)


def number_dtype(params: Tree) -> Any:
    """That of the numbers beside the sums: the widest real dtype of these."""
    dtypes = [wide_dtype(leaf) for leaf in jax.tree.leaves(params)]
    return jnp.finfo(jnp.result_type(jnp.float32, *dtypes)).dtype


def read(
    transform: str,
    penalty: Penalty,
    updates: Tree,
    params: Tree | None,
    sums: tuple[Tree, ...],
) -> tuple[list[rules.Part], Arrays]:
    """The rules and the arrays of an update, once what is wrong has been refused."""
    check_params(transform, params)
    parts = rules.check(penalty, params)
    leaves, treedef = jax.tree.flatten(params)
    leaves = [jnp.asarray(leaf) for leaf in leaves]
    grads = flatten_like(treedef, updates, "updates", NEW_STATE)
    check_updates(transform, parts, grads, params)
    columns = [flatten_like(treedef, tree, "the state", NEW_STATE) for tree in sums]
    for place, leaf in enumerate(leaves):
        for made in (column[place] for column in columns):
            if made.shape != leaf.shape:
                raise ValueError(
                    f"{transform}: the state holds a sum of shape {made.shape} for "
                    f"leaf {rules.paths(params)[place]!r} of shape {leaf.shape}; "
                    f"{NEW_STATE}"
                )
    for place in (place for part in parts for place in part.places):
        if grads[place] is None:
            raise ValueError(
                f"{transform}: the gradient of the penalised leaf "
                f"{rules.paths(params)[place]!r} is None. Leave the leaf out of the "
                "rules, or train it"
            )
    grads = [None if grad is None else widened(grad) for grad in grads]
    return parts, Arrays(leaves, grads, columns)


def prox_moves(
    parts: list[rules.Part],
    arrays: Arrays,
    points: list[jax.Array],
    steps: list[jax.Array],
    kept: Any = 0.0,
) -> list[Any]:
    """The updates to the prox of the points, short of it by the share `kept`.

    They have the dtype of their leaf. Free leaves move to their point, and a leaf
    without a gradient nowhere.
    """
    targets = list(points)
    for part in parts:
        proxes = part.penalty.prox(part.of(points), part.of(steps))
        for place, prox in zip(part.places, proxes, strict=True):
            targets[place] = prox
    moves: list[Any] = []
    for leaf, grad, target in zip(arrays.leaves, arrays.grads, targets, strict=True):
        move = (1 - kept) * (target - widened(leaf))
        moves.append(None if grad is None else move.astype(leaf.dtype))
    return moves
