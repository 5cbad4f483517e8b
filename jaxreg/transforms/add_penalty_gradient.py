"""The gradient of a penalty, added to the updates."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxreg._core.checks import check_numbers, check_params
from jaxreg._core.constraint import Constraint
from jaxreg._core.messages import shown
from jaxreg._core.penalty import Penalty, Tree, widened
from jaxreg.transforms._leaves import (
    Schedule,
    as_factor,
    at_count,
    check_schedule,
    check_state,
    read_update,
)


class AddPenaltyGradientState(NamedTuple):
    """The step count, and the last factor of the schedule."""

    penalty_gradient_count: jax.Array
    strength_factor: jax.Array


def add_penalty_gradient(
    penalty: Penalty, *, schedule: Schedule | None = None
) -> optax.GradientTransformationExtraArgs:
    """Adds `penalty.subgradient(params)` to the updates.

    First in a chain it minimises loss + penalty, as a penalty written into the loss
    does (the Keras habit): `chain(add_penalty_gradient(L2(s)), adam(1e-3))`. Between
    the preconditioner and the learning rate it is decoupled decay, another problem:
    with `L2(d / 2)` there, `chain(scale_by_adam(), ..., scale_by_learning_rate(lr))` is
    `adamw(lr, weight_decay=d)`. It leaves no exact zeros in either place; for those
    use `regularize`. It adds in at least float32 and keeps the updates' dtype.

    Args:
      penalty: any penalty; it sees the leaves that Optax's masks leave visible.
      schedule: a function of the step count (from 0) that returns a factor >= 0 on the
        penalty.

    Raises:
      TypeError, ValueError: the penalty is invalid (at the call), or its rules do not
        fit these leaves (at the first update).

    Reference: Loshchilov and Hutter 2019, Decoupled weight decay regularization,
    algorithm 2.

    >>> import jax.numpy as jnp, jaxreg
    >>> tx = jaxreg.add_penalty_gradient(jaxreg.L2(0.5))
    >>> params = jnp.array([2.0, -1.0])
    >>> tx.update(jnp.zeros(2), tx.init(params), params)[0]
    Array([ 2., -1.], dtype=float32)
    """
    check_numbers(penalty)
    check_schedule("add_penalty_gradient", schedule)

    def init(params: Tree) -> AddPenaltyGradientState:
        del params
        count, factor = jnp.zeros([], jnp.int32), jnp.ones([], jnp.float32)
        return AddPenaltyGradientState(count, factor)

    def update(
        updates: Tree,
        state: AddPenaltyGradientState,
        params: Tree | None = None,
        **extra_args: Any,
    ) -> tuple[Tree, AddPenaltyGradientState]:
        del extra_args
        check_params("add_penalty_gradient", params)
        check_state("add_penalty_gradient", state, AddPenaltyGradientState)
        leaves, out, _ = read_update("add_penalty_gradient", penalty, updates, params)
        factor = at_count(schedule, state.penalty_gradient_count)
        for part in leaves.parts:
            _check_gradient(part.penalty)
            wide = [widened(leaf) for leaf in part.pick(leaves.leaves)]
            pulls = part.penalty.subgradient(wide)
            for index, pull in zip(part.indices, pulls, strict=True):
                grad = out[index]
                # A missing gradient stays missing: that leaf is not being trained.
                if grad is not None:
                    out[index] = (grad + factor * pull).astype(jnp.result_type(grad))
        count = optax.safe_increment(state.penalty_gradient_count)
        new_state = AddPenaltyGradientState(count, as_factor(factor))
        return leaves.tree(out), new_state

    return optax.GradientTransformationExtraArgs(init, update)


def _check_gradient(penalty: Penalty) -> None:
    if isinstance(penalty, Constraint):
        raise TypeError(
            f"add_penalty_gradient({shown(penalty)}): a constraint has no gradient; "
            "give it to jaxreg.regularize, or add that of jaxreg.envelope(constraint, "
            "step)"
        )
