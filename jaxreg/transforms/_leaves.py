"""Reads and validates an update, and turns targets into updates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxreg._core.checks import check_numbers, check_params
from jaxreg._core.groups import check_count, is_int
from jaxreg._core.layout import Entries, Layout
from jaxreg._core.messages import shown
from jaxreg._core.penalty import (
    Leaf,
    Number,
    Penalty,
    Tree,
    is_real_floating,
    shape_misfit,
    widened,
)
from jaxreg._core.ranges import check_number, is_array
from jaxreg.rules.by_path import Leaves, Part

INNER_UPDATES = "the updates of the optimizer"
NEW_STATE = "call tx.init(params) after a change of the parameters"

Schedule = Callable[[jax.Array], Number]
Targets = Callable[[Part, list[jax.Array], list[jax.Array]], list[jax.Array]]
"""The new leaves of a part, from its leaves and leaves + updates, both widened."""


def read_update(
    transform: str,
    penalty: Penalty,
    updates: Tree,
    params: Tree | None,
    stored: Sequence[Tree] = (),
) -> tuple[Leaves, list[Any], list[list[Any]]]:
    """Returns the parameters' leaves, their updates and what the state stores of each.

    A leaf without an update is left out if the state has nothing for it, and is free if
    it is not real floating: `params` may be a whole model, of which a part is trained.
    """
    check_params(transform, params)
    leaves = Leaves(penalty, arrays_of(params))
    leaves.check_rules()
    moves = leaves.like(updates, "updates", NEW_STATE)
    columns = [leaves.like(tree, "the state", NEW_STATE) for tree in stored]
    absent = {
        index
        for column in columns
        for index, content in enumerate(column)
        if content is None
    }
    for index in absent:
        if moves[index] is not None:
            raise ValueError(
                f"{transform}: leaf {leaves.names[index]!r} had no array when the "
                f"state was made; {NEW_STATE}"
            )
    if absent:
        present = [
            None if index in absent else leaf
            for index, leaf in enumerate(leaves.leaves)
        ]
        leaves = Leaves(penalty, leaves.tree(present))
        moves, *columns = (
            [content for index, content in enumerate(column) if index not in absent]
            for column in (moves, *columns)
        )
    pairs = enumerate(zip(leaves.leaves, moves, strict=True))
    leaves.free([i for i, (x, move) in pairs if move is None and not is_floating(x)])
    leaves.check_leaves()
    leaves.leaves = list(map(jnp.asarray, leaves.leaves))
    check_updates(transform, leaves, moves)
    return leaves, moves, columns


def read_start(penalty: Penalty, params: Tree) -> Leaves:
    """The leaves that a state is made for; those not real floating are free."""
    leaves = Leaves(penalty, arrays_of(params))
    pairs = enumerate(leaves.leaves)
    leaves.free([index for index, leaf in pairs if not is_floating(leaf)])
    return leaves


def arrays_of(params: Tree) -> Tree:
    """The parameters, with None for what is no array in a whole model.

    These are functions, texts, PRNG keys, and Python's integers, such as a width.
    """
    if all(map(_is_parameter, jax.tree.leaves(params))):
        return params
    return jax.tree.map(lambda leaf: leaf if _is_parameter(leaf) else None, params)


def _is_parameter(leaf: object) -> bool:
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        return not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return is_array(leaf) and not isinstance(leaf, int)


def is_floating(leaf: Leaf | jax.ShapeDtypeStruct) -> bool:
    """True if a leaf is real floating."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.floating)


def updates_to(
    transform: str,
    penalty: Penalty,
    updates: Tree,
    params: Tree | None,
    targets: Targets,
) -> Tree:
    """Redirects the updates of penalised leaves to `targets(part, leaves, points)`.

    They get the dtype of their leaf. A missing update stays missing: that leaf is not
    being trained.
    """
    leaves, moves, _ = read_update(transform, penalty, updates, params)
    for part in leaves.parts:
        wide = [widened(leaf) for leaf in part.pick(leaves.leaves)]
        points = [
            leaf if move is None else leaf + move
            for leaf, move in zip(wide, part.pick(moves), strict=True)
        ]
        for index, target in zip(
            part.indices, targets(part, wide, points), strict=True
        ):
            if moves[index] is not None:
                moves[index] = update_to(target, leaves.leaves[index])
    return leaves.tree(moves)


def update_to(target: jax.Array, leaf: jax.Array) -> jax.Array:
    """The update that takes a leaf to a target, in the leaf's dtype.

    The target is rounded first: the difference of near numbers is then exact, and half
    precision parameters are the rounded target itself.
    """
    return target.astype(leaf.dtype) - leaf


def stateless(
    transform: str, penalty: Penalty, targets: Targets
) -> optax.GradientTransformationExtraArgs:
    """A transformation without state that moves penalised leaves to targets."""
    check_numbers(penalty)

    def init(params: Tree) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def update(
        updates: Tree,
        state: optax.EmptyState,
        params: Tree | None = None,
        **extra: Any,
    ) -> tuple[Tree, optax.EmptyState]:
        del extra
        return updates_to(transform, penalty, updates, params, targets), state

    return optax.GradientTransformationExtraArgs(init, update)


def check_updates(
    transform: str, leaves: Leaves, updates: list[Any], name: str = "updates"
) -> None:
    """Raises on updates of the wrong shape, or not real floating where penalised.

    Missing updates, and masked nodes on free leaves, are left to the caller; `name` is
    what the updates are.
    """
    penalised = leaves.penalised
    for index, (update, leaf) in enumerate(zip(updates, leaves.leaves, strict=True)):
        if not jax.tree.leaves(update):
            if update is not None and index in penalised:
                raise ValueError(
                    f"{transform}: {name} has {shown(update)} at the penalised leaf "
                    f"{leaves.names[index]!r}; allowed: an array, or None if the leaf "
                    "is not being trained. Mask params alike, as optax.masked does, or "
                    "leave the leaf out of the rules"
                )
            continue
        misfit = shape_misfit(update, leaf)
        if misfit is not None:
            raise ValueError(
                f"{transform}: {name} has {misfit} at leaf {leaves.names[index]!r} of "
                f"shape {jnp.shape(leaf)}; pass what belongs to these params, as the "
                "gradient of the loss at params"
            )
        dtype = jnp.result_type(update)
        if index in penalised and not is_real_floating(update):
            raise TypeError(
                f"{transform}: {name} has dtype {dtype} at leaf "
                f"{leaves.names[index]!r} of dtype {jnp.result_type(leaf)}; allowed: "
                "the real floating gradient of a real loss, of 16 bits or more"
            )


def check_gradients(
    transform: str, leaves: Leaves, grads: list[jax.Array | None]
) -> None:
    """Raises if a penalised leaf has no gradient."""
    for index in leaves.penalised:
        if grads[index] is None:
            raise ValueError(
                f"{transform}: the gradient of the penalised leaf "
                f"{leaves.names[index]!r} is None. Leave the leaf out of the rules, or "
                "train it"
            )


def check_state(transform: str, state: object, kind: type) -> None:
    """Raises if `state` is that of another transformation."""
    if not isinstance(state, kind):
        raise TypeError(
            f"{transform}: state is of type {type(state).__name__}; allowed: the "
            f"{kind.__name__} that tx.init(params) returns. Restore a checkpoint into "
            "the structure of tx.init(params)"
        )


def zeroed_units(penalty: Penalty) -> Layout:
    """The layout of the units that the prox zeroes jointly, or single entries."""
    return penalty.layout if penalty.facts.zeros == "units" else Entries()


def check_schedule(transform: str, schedule: object) -> None:
    """Raises if `schedule` is neither a function nor None."""
    if schedule is not None and not callable(schedule):
        raise TypeError(
            f"{transform}: schedule is {shown(schedule)}; allowed: a function of the "
            "step count, such as optax.linear_schedule(0.0, 1.0, 1000), or None. Under "
            'optax.inject_hyperparams name it in static_args=("schedule",)'
        )


def check_rate(transform: str, learning_rate: object) -> None:
    """Raises if a learning rate is no number >= 0 and no function of the step count."""
    if isinstance(learning_rate, optax.GradientTransformation):
        raise TypeError(
            f"{transform}: learning_rate is an Optax optimizer; allowed: a number or a "
            "function of the step count. Around an optimizer write "
            "jaxreg.regularize(optimizer, penalty)"
        )
    if not callable(learning_rate):
        check_number(f"{transform}: learning_rate", learning_rate)


def check_steps(name: str, steps: object, least: int = 0) -> None:
    """Raises if a number of updates is not an int >= `least`."""
    if not is_int(steps):
        raise TypeError(
            f"{name} is {shown(steps)}; allowed: an int >= {least}, such as "
            "int(0.8 * steps). Under optax.inject_hyperparams name it in static_args"
        )
    check_count(name, steps, least)


def at_count(number: Number | Schedule | None, count: jax.Array) -> Number:
    """Evaluates a number or schedule at the step count; 1 for None."""
    if number is None:
        return 1.0
    return number(count) if callable(number) else number


def as_factor(factor: Number) -> jax.Array:
    """Converts the factor on the penalty for a state: a strongly typed float32."""
    return jax.lax.convert_element_type(factor, jnp.float32)
