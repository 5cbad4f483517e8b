"""Updates that take parameters to a target, such as a prox of where they would be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxreg._core.checks import check_params
from jaxreg._core.penalty import Number, Penalty, Tree, flatten_like, widened
from jaxreg.rules import by_path as rules

NEW_STATE = "call tx.init(params) after a change of the parameters"

Schedule = Callable[[jax.Array], Number]
# Of a rule, the leaves in at least float32 and where the updates would take them.
Targets = Callable[[rules.Part, list[jax.Array], list[jax.Array]], list[jax.Array]]


def updates_to(
    transform: str,
    penalty: Penalty,
    updates: Tree,
    params: Tree | None,
    targets: Targets,
) -> Tree:
    """The updates, those of penalised leaves led to `targets(part, leaves, points)`.

    These get the dtype of their leaf. A missing update stays missing: that leaf is not
    being trained.
    """
    check_params(transform, params)
    parts = rules.check(penalty, params)
    leaves, treedef = jax.tree.flatten(params)
    leaves = [jnp.asarray(leaf) for leaf in leaves]
    moves = flatten_like(treedef, updates, "updates", "pass updates for these params")
    check_updates(transform, parts, moves, params)
    for part in parts:
        wide = [widened(leaf) for leaf in part.of(leaves)]
        points = [
            leaf if move is None else leaf + move
            for leaf, move in zip(wide, part.of(moves), strict=True)
        ]
        for place, target in zip(part.places, targets(part, wide, points), strict=True):
            if moves[place] is not None:
                move = target - leaves[place]
                moves[place] = move.astype(leaves[place].dtype)
    return jax.tree.unflatten(treedef, moves)


def check_updates(
    transform: str, parts: list[rules.Part], updates: list[Any], params: Tree
) -> None:
    """Refuses updates of another shape than their leaf, or not real where penalised.

    What has no arrays, as None or what a mask hides, is left to the caller.
    """
    penalised = {place for part in parts for place in part.places}
    for place, (update, leaf) in enumerate(
        zip(updates, jax.tree.leaves(params), strict=True)
    ):
        if not jax.tree.leaves(update):
            continue
        shape, is_array = jnp.shape(leaf), jax.tree_util.all_leaves([update])
        if not is_array or jnp.shape(update) != shape:
            has = f"shape {jnp.shape(update)}" if is_array else "a tree"
            raise ValueError(
                f"{transform}: updates has {has} at leaf "
                f"{rules.paths(params)[place]!r} of shape {shape}; pass what belongs "
                "to these params, as the gradient of the loss at params"
            )
        dtype = jnp.result_type(update)
        if place in penalised and not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"{transform}: updates has dtype {dtype} at leaf "
                f"{rules.paths(params)[place]!r} of dtype {jnp.result_type(leaf)}; "
                "allowed: the real floating gradient of a real loss"
            )


def check_state(transform: str, state: Any, kind: type) -> None:
    """Refuses the state of another transformation."""
    if not isinstance(state, kind):
        raise TypeError(
            f"{transform}: state is of type {type(state).__name__}; allowed: the "
            f"{kind.__name__} that tx.init(params) returns. Restore a checkpoint into "
            "the structure of tx.init(params)"
        )


def is_dead(penalty: Penalty, leaf: jax.Array) -> jax.Array:
    """At every entry, whether what the prox would zero with it is exactly zero."""
    return penalty.spread(penalty.unit_sizes(leaf) == 0, leaf.shape)


def check_schedule(transform: str, schedule: Any) -> None:
    """Refuses a schedule that is no function."""
    if schedule is not None and not callable(schedule):
        raise TypeError(
            f"{transform}: schedule is {schedule!r}; allowed: a function of the step "
            "count, such as optax.linear_schedule(0.0, 1.0, 1000), or None. Under "
            'optax.inject_hyperparams name it in static_args=("schedule",)'
        )


def at_count(number: Number | Schedule | None, count: jax.Array) -> Any:
    """A number, or what a schedule makes of the step count; 1 for None."""
    if number is None:
        return 1.0
    return number(count) if callable(number) else number


def as_factor(factor: Any) -> jax.Array:
    """The factor on the penalty as a state keeps it, a strong float32 scalar."""
    return jax.lax.convert_element_type(factor, jnp.float32)
