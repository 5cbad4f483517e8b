"""Regularized dual averaging: the prox of all gradients so far, with a stable support.

The last parameters enter only through their gradients. A coordinate is exactly 0 as
long as the weighted mean of all its gradients stays within the penalty's slope at 0,
and the noise of a mean falls with the step count: the support settles, and then stays.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxreg._core.penalty import Number, Penalty, Tree, wide_dtype
from jaxreg._core.ranges import check_share
from jaxreg.transforms._leaves import (
    Schedule,
    arrays_of,
    as_factor,
    at_count,
    check_state,
)
from jaxreg.transforms._running_sums import (
    check_arguments,
    number_dtype,
    prox_moves,
    read,
)


class DualAverageState(NamedTuple):
    """The first parameters, the weighted sums since, and the step count.

    `gradient_sum` adds up gradients, `penalty_sum` the factors of the schedule;
    `strength_factor` is the last of these.
    """

    first_params: Tree
    gradient_sum: Tree
    penalty_sum: jax.Array
    averaged_steps: jax.Array
    strength_factor: jax.Array


def dual_average(
    learning_rate: Number | Schedule,
    penalty: Penalty,
    momentum: Number | Schedule = 0.0,
    *,
    schedule: Schedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Minimises loss + penalty by regularized dual averaging (RDA, RMDA).

    With the parameters `x_0` of the first step and weights `s_t = learning_rate
    sqrt(t)`, t from 1, step t goes to

        `y_t = argmin_x  <sum s g, x> + (sum s) penalty(x) + sqrt(t) |x - x_0|^2 / 2`
        `x_t = momentum x_{t-1} + (1 - momentum) y_t`.

    It is a whole optimizer. Use it where the gradients are noisy and the support has to
    be right: zeros are exact and, once the noise has averaged out, they stay. Entries
    that are not 0 move as under SGD, but each step also pulls them towards `x_0` by
    `1 / (2 t)` of the distance. So the error falls like
    `(x_0 - x) / (2 learning_rate curvature t)`, and a learning rate that decays to 0
    lets it grow again: keep it constant. To lower it, start anew with
    `tx.init(params)`, as the authors do. Do so too after an edit of the parameters: the
    next step would undo it, since it follows from the sums alone.

    With momentum above 0 zeros are not exact; it may be a schedule that ends at 0. The
    sums are kept in at least float32, so bfloat16 weights do not stagnate. They grow,
    and in float32 resolve a gradient to `6e-8 t` of its mean: start anew before a
    million steps. Leaves without a rule are trained in the same way, without penalty.
    With `x_0 = 0` and the learning rate `lambda count: rate / jnp.sqrt(count + 1.0)` it
    is the method of Xiao.

    Args:
      learning_rate: a number, or a function of the step count (from 0).
      penalty: any convex penalty with a prox.
      momentum: the share of the last parameters that is kept, from 0 to below 1 (`1 -
        c` of the paper), or a function of the step count.
      schedule: a function of the step count that returns a factor >= 0 on the penalty.

    Raises:
      TypeError, ValueError: at the call an argument out of range; at the first update
        missing params, a rule that catches no leaf, a missing gradient of a penalised
        leaf, or a state of other parameters.

    Reference: Huang and Lee 2022, Training structured neural networks through manifold
    identification and variance reduction, arXiv 2112.02612, algorithm 1; the weights
    are those of Jelassi and Defazio 2020, arXiv 2010.10502; Xiao 2010, Dual averaging
    methods for regularized stochastic learning and online optimization.

    >>> import jax, jax.numpy as jnp, optax, jaxreg
    >>> loss = lambda w: jnp.sum((w - jnp.array([2.0, 0.3])) ** 2)
    >>> tx = jaxreg.dual_average(0.4, jaxreg.L1(1.0))
    >>> w = jnp.zeros(2)
    >>> state = tx.init(w)
    >>> for _ in range(200):
    ...     updates, state = tx.update(jax.grad(loss)(w), state, w)
    ...     w = optax.apply_updates(w, updates)
    >>> print(f"{w[0]:.2f} {w[1]:.2f}")
    1.50 0.00
    """
    check_arguments("dual_average", learning_rate, penalty, schedule)
    if not callable(momentum):
        check_share("dual_average: momentum", momentum)

    transform = _DualAverage(penalty, learning_rate, momentum, schedule)
    return optax.GradientTransformationExtraArgs(transform.init, transform.update)


@dataclasses.dataclass(frozen=True)
class _DualAverage:
    """The transformation that `dual_average` returns."""

    penalty: Penalty
    rate: Number | Schedule
    momentum: Number | Schedule
    schedule: Schedule | None

    def init(self, params: Tree) -> DualAverageState:
        params = arrays_of(params)
        return DualAverageState(
            first_params=jax.tree.map(_copy, params),
            gradient_sum=jax.tree.map(
                lambda leaf: jnp.zeros_like(leaf, dtype=wide_dtype(leaf)), params
            ),
            penalty_sum=jnp.zeros([], number_dtype(params)),
            averaged_steps=jnp.zeros([], jnp.int32),
            strength_factor=jnp.ones([], jnp.float32),
        )

    def update(
        self,
        updates: Tree,
        state: DualAverageState,
        params: Tree | None = None,
        **extra: Any,
    ) -> tuple[Tree, DualAverageState]:
        del extra
        check_state("dual_average", state, DualAverageState)
        before = state.averaged_steps
        sums = state.first_params, state.gradient_sum
        arrays = read("dual_average", self.penalty, updates, params, sums)
        factor, dtype = at_count(self.schedule, before), state.penalty_sum.dtype
        count = optax.safe_increment(before)
        root = jnp.sqrt(count.astype(dtype))
        weight = (at_count(self.rate, before) * root).astype(dtype)
        penalty_sum = (state.penalty_sum + weight * factor).astype(dtype)

        starts = _starts(arrays.leaves.leaves, arrays.sums[0], before == 0)
        totals = arrays.sums[1]
        totals = [
            total if grad is None else (total + weight * grad).astype(total.dtype)
            for total, grad in zip(totals, arrays.grads, strict=True)
        ]
        points = [
            start.astype(total.dtype) - total / root.astype(total.dtype)
            for start, total in zip(starts, totals, strict=True)
        ]
        steps = [penalty_sum / root] * len(points)
        momentum = at_count(self.momentum, before)
        moves = prox_moves(arrays, points, steps, momentum)
        tree = arrays.leaves.tree
        return tree(moves), DualAverageState(
            first_params=tree(starts),
            gradient_sum=tree(totals),
            penalty_sum=penalty_sum,
            averaged_steps=count,
            strength_factor=as_factor(factor),
        )


def _copy(leaf: jax.Array | jax.ShapeDtypeStruct) -> jax.Array:
    # No array may be in both params and state, since a step may donate both.
    is_shape = isinstance(leaf, jax.ShapeDtypeStruct)
    return jnp.zeros_like(leaf) if is_shape else jnp.array(leaf, copy=True)


def _starts(
    leaves: list[jax.Array], starts: list[jax.Array], is_first: jax.Array
) -> list[jax.Array]:
    """The first parameters, read at the first step if `init` got shapes alone."""
    pairs = zip(leaves, starts, strict=True)
    return [jnp.where(is_first, leaf, start) for leaf, start in pairs]
