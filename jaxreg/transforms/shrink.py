"""The prox behind an optimizer's step, at the learning rate: decoupled shrinkage."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxreg._core.checks import check_numbers, check_prox
from jaxreg._core.penalty import Number, Penalty, Tree
from jaxreg.rules.by_path import Part
from jaxreg.transforms._leaves import (
    Schedule,
    as_factor,
    at_count,
    check_rate,
    check_schedule,
    check_state,
    updates_to,
)


class ShrinkState(NamedTuple):
    """The step count, and the last factor of the schedule."""

    shrink_count: jax.Array
    strength_factor: jax.Array


def shrink(
    penalty: Penalty,
    learning_rate: Number | Schedule,
    *,
    cautious: bool = False,
    schedule: Schedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Decoupled shrinkage: `x <- prox_{learning_rate}(x + updates)`, last in a chain.

    With `L2(d / 2)` it is AdamW's decay in prox form, `x / (1 + learning_rate d)` in
    place of `(1 - learning_rate d) x`; with `L1` its sparse counterpart. It does not
    minimise loss + penalty after an adaptive optimizer, since its step is Euclidean.
    After Adam a weight survives `L1(s)` where its gradient is steady,
    `|mean g| > s rms(g)`; so s is a number without units, between 0 and 1, that
    transfers between layers. After plain SGD it is proximal gradient descent, and does
    minimise loss + penalty.

    Args:
      penalty: any penalty with a prox.
      learning_rate: that of the optimizer before it; a number, or a function of the
        step count (from 0).
      cautious: shrink only where the update does not point away from zero; the penalty
        needs a prox for steps that differ between entries.
      schedule: a function of the step count that returns a factor >= 0 on the penalty.

    Raises:
      TypeError, ValueError: at the call an argument out of range; at the first update
        missing params, or a rule that catches no leaf.

    Reference: Zhuang et al. 2022, Understanding AdamW through proximal methods and
    scale-freeness, arXiv 2202.00089; Chen, Li, Liu 2025, Cautious weight decay.

    >>> import jax.numpy as jnp, optax, jaxreg
    >>> tx = optax.chain(optax.sgd(0.25), jaxreg.shrink(jaxreg.L1(1.0), 0.25))
    >>> w = jnp.array([1.0, 0.375])
    >>> tx.update(jnp.array([1.0, 1.0]), tx.init(w), w)[0]
    Array([-0.5  , -0.375], dtype=float32)
    """
    check_numbers(penalty, learning_rate=learning_rate)
    check_prox("shrink", penalty)
    check_rate("shrink", learning_rate)
    check_schedule("shrink", schedule)

    def init(params: Tree) -> ShrinkState:
        del params
        return ShrinkState(jnp.zeros([], jnp.int32), jnp.ones([], jnp.float32))

    def update(
        updates: Tree, state: ShrinkState, params: Tree | None = None, **extra: Any
    ) -> tuple[Tree, ShrinkState]:
        del extra
        check_state("shrink", state, ShrinkState)
        rate = at_count(learning_rate, state.shrink_count)
        factor = at_count(schedule, state.shrink_count)
        step = rate * factor

        def targets(
            part: Part, leaves: list[jax.Array], points: list[jax.Array]
        ) -> list[jax.Array]:
            if not cautious:
                return part.penalty.prox(points, jnp.asarray(step))
            pairs = zip(leaves, points, strict=True)
            steps = [jnp.where((new - x) * x <= 0, step, 0.0) for x, new in pairs]
            return part.penalty.prox(points, steps)

        moves = updates_to("shrink", penalty, updates, params, targets)
        count = optax.safe_increment(state.shrink_count)
        return moves, ShrinkState(count, as_factor(factor))

    return optax.GradientTransformationExtraArgs(init, update)
