"""The prox as the last link of an optimizer, in the optimizer's own metric."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxreg._core.checks import check_numbers, check_params, check_prox
from jaxreg._core.penalty import Number, Penalty, Tree, flatten_like, widened
from jaxreg.preconditioners.factories import check_direction, check_type
from jaxreg.preconditioners.from_state import Preconditioner, read_preconditioner
from jaxreg.rules.by_path import Part
from jaxreg.transforms._blockwise import with_blockwise_prox
from jaxreg.transforms._leaves import (
    NEW_STATE,
    Schedule,
    arrays_of,
    as_factor,
    at_count,
    check_rate,
    check_schedule,
    check_state,
    read_update,
    updates_to,
)

_NAME_AND_HINT = "updates of the direction", "use another"


class ProximalState(NamedTuple):
    """The state of the direction, the step count, and the schedule's last factor."""

    direction: optax.OptState
    proximal_count: jax.Array
    strength_factor: jax.Array


def proximal(
    direction: optax.GradientTransformation,
    learning_rate: Number | Schedule,
    penalty: Penalty,
    *,
    preconditioner: Preconditioner,
    schedule: Schedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Minimises loss + penalty by a prox in the metric of the optimizer.

    It takes the place of `optax.scale_by_learning_rate` after a direction `d`:

        `x <- prox_{learning_rate p}(x - learning_rate d)`

    where `p` is the preconditioner: the direction's output for a constant gradient `g`,
    per unit gradient, `p_i = d_i / g_i`. With this step the fixed points are those of
    loss + penalty; with the plain learning rate, after Adam or momentum, they are not.
    It needs no memory, and its zeros are exact, but with noisy gradients they come and
    go; `regularize` holds them. A coordinate that has had no gradient is left alone.

    Args:
      direction: an Optax transformation without learning rate or sign, as
        `optax.scale_by_adam()`; clipping and weight decay may be chained into it.
        `preconditioners.check` detects the learning rate in an alias such as
        `optax.adam(1e-3)`; `proximal` cannot.
      learning_rate: a number, or a function of the step count (from 0).
      penalty: any penalty whose prox takes these steps; after an adaptive direction,
        one with `varying_step`.
      preconditioner: that of the direction, from `jaxreg.preconditioners`:
        `identity()`, `momentum(decay)`, `adam(b2, eps, eps_root)`, ...
      schedule: a function of the step count that returns a factor >= 0 on the penalty.

    Raises:
      TypeError, ValueError: at the call an argument out of range; at the first update a
        rule that catches no leaf, a direction's state that the preconditioner cannot
        read or that occurs twice, or a step that the penalty's prox cannot take.

    Reference: Yun, Lozano and Yang 2021, Adaptive proximal gradient methods for
    structured neural networks, arXiv 2110.10404, algorithm 1.

    >>> import jax, jax.numpy as jnp, optax, jaxreg
    >>> loss = lambda w: jnp.sum((w - jnp.array([2.0, 0.3])) ** 2)
    >>> tx = jaxreg.proximal(
    ...     optax.trace(0.9),
    ...     0.01,
    ...     jaxreg.L1(1.0),
    ...     preconditioner=jaxreg.preconditioners.momentum(0.9),
    ... )
    >>> w = jnp.zeros(2)
    >>> state = tx.init(w)
    >>> for _ in range(200):
    ...     updates, state = tx.update(jax.grad(loss)(w), state, w)
    ...     w = optax.apply_updates(w, updates)
    >>> print(f"{w[0]:.4f} {w[1]:.4f}")
    1.5000 0.0000
    """
    check_numbers(penalty, direction=direction, learning_rate=learning_rate)
    check_prox("proximal", penalty)
    check_direction("proximal", direction)
    check_rate("proximal", learning_rate)
    check_type("proximal", preconditioner)
    check_schedule("proximal", schedule)
    inner = optax.with_extra_args_support(direction)

    def init(params: Tree) -> ProximalState:
        count, factor = jnp.zeros([], jnp.int32), jnp.ones([], jnp.float32)
        return ProximalState(inner.init(arrays_of(params)), count, factor)

    def update(
        updates: Tree, state: ProximalState, params: Tree | None = None, **extra: Any
    ) -> tuple[Tree, ProximalState]:
        check_params("proximal", params)
        check_state("proximal", state, ProximalState)
        params = _started(inner, arrays_of(params), updates, state.direction)
        leaves, _, _ = read_update("proximal", penalty, updates, params)
        _check_direction(jax.eval_shape(inner.init, params), state.direction)
        rate = at_count(learning_rate, state.proximal_count)
        factor = at_count(schedule, state.proximal_count)

        def before_prox(
            updates: Tree, direction: optax.OptState, params: Tree
        ) -> tuple[dict[int, Any], dict[int, jax.Array], optax.OptState, Tree]:
            """Points and steps of penalised leaves, the direction's state, and moves.

            A leaf that is not being trained has no move, and None as its point.
            """
            moves, direction = inner.update(updates, direction, params, **extra)
            by_leaf = leaves.like(moves, *_NAME_AND_HINT)
            scales = read_preconditioner(
                preconditioner, direction, leaves.treedef, by_leaf
            )
            moves = jax.tree.map(
                lambda move: jnp.asarray(-rate * move).astype(jnp.result_type(move)),
                moves,
            )
            by_leaf = leaves.like(moves, *_NAME_AND_HINT)
            params = jax.tree.leaves(params)
            points, steps = dict[int, Any](), dict[int, jax.Array]()
            for index in leaves.penalised:
                leaf, move = widened(params[index]), by_leaf[index]
                points[index] = None if move is None else leaf + move
                steps[index] = jnp.asarray(rate * factor * scales[index], leaf.dtype)
            return points, steps, direction, moves

        inputs = updates, state.direction, params
        result, prox = with_blockwise_prox(leaves.parts, before_prox, *inputs)
        _, steps, direction, moves = result

        def targets(
            part: Part, _: list[jax.Array], points: list[jax.Array]
        ) -> list[jax.Array]:
            return prox(part, points, part.pick(steps))

        moves = updates_to("proximal", penalty, moves, params, targets)
        count = optax.safe_increment(state.proximal_count)
        return moves, ProximalState(direction, count, as_factor(factor))

    return optax.GradientTransformationExtraArgs(init, update)


def _started(
    direction: optax.GradientTransformation,
    params: Tree,
    updates: Tree,
    state: optax.OptState,
) -> Tree:
    """The parameters that a state was made for: those with updates, or all."""
    leaves, treedef = jax.tree.flatten(params)
    moves = flatten_like(treedef, updates, "updates", NEW_STATE)
    pairs = zip(leaves, moves, strict=True)
    trained = jax.tree.unflatten(
        treedef, [None if move is None else leaf for leaf, move in pairs]
    )

    def has_state(tree: Tree) -> bool:
        treedef: Any  # To mypy, JAX's type of structures has no `==`.
        treedef = jax.tree.structure(jax.eval_shape(direction.init, tree))
        return treedef == jax.tree.structure(state)

    is_whole = all(move is not None for move in moves) or has_state(params)
    return params if is_whole or not has_state(trained) else trained


def _check_direction(expected: optax.OptState, state: optax.OptState) -> None:
    """Raises if the direction's state was made for other parameters."""
    shapes, structure = jax.tree_util.tree_flatten_with_path(expected)
    arrays = flatten_like(structure, state, "the direction's state", NEW_STATE)
    for (path, wanted), array in zip(shapes, arrays, strict=True):
        if jnp.shape(array) != wanted.shape:
            raise ValueError(
                f"proximal: the direction's state has shape {jnp.shape(array)} at "
                f"{jax.tree_util.keystr(path)}, and for these params {wanted.shape}; "
                f"{NEW_STATE}"
            )
