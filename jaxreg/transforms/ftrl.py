"""FTRL-Proximal: AdaGrad whose penalty acts on running sums, for zeros that stay.

Each step minimises the sum of all linearised losses and penalties so far, regularized
by squares around every past point. Off zero that is AdaGrad on loss + penalty; a zero
moves once the sum of all its gradients outgrows the sum of all penalties.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxreg._core.messages import shown
from jaxreg._core.penalty import Number, Penalty, Tree, wide_dtype, widened
from jaxreg._core.ranges import check_number
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


class FtrlState(NamedTuple):
    """The sums z and n of the paper, the sum of penalty factors, and the step count.

    `linear_sum` and `penalty_sum` are in units of the learning rate; `strength_factor`
    is the last factor of the schedule.
    """

    linear_sum: Tree
    square_sum: Tree
    penalty_sum: jax.Array
    led_steps: jax.Array
    strength_factor: jax.Array


def ftrl(
    learning_rate: Number,
    penalty: Penalty,
    beta: Number = 1.0,
    initial_accumulator_value: Number = 0.0,
    *,
    schedule: Schedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Minimises loss + penalty by FTRL-Proximal, per coordinate.

    With `H = (beta + sqrt(n)) / learning_rate` and the parameters `x_0` of the first
    step:

        `n <- n + g^2`,  `z <- z + g - (H_new - H_old) x`,  `z_0 = -H_0 x_0`
        `x <- prox_{steps / H}(-z / H)`.

    It is a whole optimizer, made for sparse gradients that come one at a time, as in
    click prediction. Off zero its steps are those of AdaGrad on loss + penalty. Zeros
    are exact, and stay until the sum of all gradients outgrows that of all penalties.

    Units: here the penalty counts once per step, as in every other transform, and the
    solutions of loss + penalty are the fixed points. In the paper and in Keras `l1`
    counts once per run, and fades. `schedule=lambda count: count == 0` is their form,
    from `x_0 = 0`; the paper's `l1` and `l2` are then `ElasticNet(l1, l2 / 2)`, those
    of Keras and TensorFlow, which double it, `ElasticNet(l1, l2)`.

    The sums are kept in at least float32, so bfloat16 weights do not stagnate. They
    grow, and in float32 resolve a gradient to `6e-8 t` of its mean after t steps: start
    anew before a million. The next step undoes most of an edit of the parameters; call
    `tx.init(params)` after one. Leaves without a rule are trained in the same way,
    without penalty. With `beta = 0` a coordinate that has had no gradient is left
    alone.

    Args:
      learning_rate: a number >= 0; the steps fall by themselves as gradients add up.
      penalty: any convex penalty whose prox takes steps that differ between entries
        (`varying_step`).
      beta: >= 0, in units of a gradient; it bounds the first steps.
      initial_accumulator_value: >= 0, the first n (Keras: 0.1, and beta 0).
      schedule: a function of the step count (from 0) that returns a factor >= 0 on the
        penalty.

    Raises:
      TypeError, ValueError: at the call an argument out of range, a learning rate
        schedule among them; at the first update missing params, a rule that catches no
        leaf, a missing gradient of a penalised leaf, a state of other parameters, or
        steps that the penalty's prox cannot take.

    Reference: McMahan et al. 2013, Ad click prediction: a view from the trenches,
    algorithm 1; McMahan 2011, Follow-the-regularized-leader and mirror descent (FTRL
    and RDA with the penalty of every step).

    >>> import jax, jax.numpy as jnp, optax, jaxreg
    >>> loss = lambda w: jnp.sum((w - jnp.array([2.0, 0.3])) ** 2)
    >>> tx = jaxreg.ftrl(0.5, jaxreg.L1(1.0))
    >>> w = jnp.zeros(2)
    >>> state = tx.init(w)
    >>> for _ in range(200):
    ...     updates, state = tx.update(jax.grad(loss)(w), state, w)
    ...     w = optax.apply_updates(w, updates)
    >>> print(f"{w[0]:.4f} {w[1]:.4f}")
    1.5000 0.0000
    """
    check_arguments("ftrl", learning_rate, penalty, schedule)
    if callable(learning_rate):
        raise TypeError(
            f"ftrl: learning_rate is {shown(learning_rate)}; allowed: a number, which "
            "falls by itself with the gradients seen. jaxreg.prox_adagrad and "
            "jaxreg.dual_average take a function of the step count"
        )
    check_number("ftrl: beta", beta)
    check_number("ftrl: initial_accumulator_value", initial_accumulator_value)

    numbers = learning_rate, beta, initial_accumulator_value
    transform = _Ftrl(penalty, *numbers, schedule)
    return optax.GradientTransformationExtraArgs(transform.init, transform.update)


@dataclasses.dataclass(frozen=True)
class _Ftrl:
    """The transformation that `ftrl` returns."""

    penalty: Penalty
    rate: Number
    beta: Number
    first_square: Number
    schedule: Schedule | None

    def init(self, params: Tree) -> FtrlState:
        params = arrays_of(params)
        squares = jax.tree.map(lambda leaf: _filled(leaf, self.first_square), params)
        return FtrlState(
            linear_sum=jax.tree.map(
                lambda leaf, n: _start(leaf, self.beta + _root(n)), params, squares
            ),
            square_sum=squares,
            penalty_sum=jnp.zeros([], number_dtype(params)),
            led_steps=jnp.zeros([], jnp.int32),
            strength_factor=jnp.ones([], jnp.float32),
        )

    def update(
        self, updates: Tree, state: FtrlState, params: Tree | None = None, **extra: Any
    ) -> tuple[Tree, FtrlState]:
        del extra
        check_state("ftrl", state, FtrlState)
        sums = state.linear_sum, state.square_sum
        arrays = read("ftrl", self.penalty, updates, params, sums)
        factor = at_count(self.schedule, state.led_steps)
        penalty_sum = state.penalty_sum + self.rate * factor
        penalty_sum = penalty_sum.astype(state.penalty_sum.dtype)

        # A state made of shapes alone has no parameters yet.
        linear, squares = arrays.sums
        linear = [
            jnp.where(state.led_steps == 0, _start(leaf, self.beta + _root(n)), z)
            for leaf, z, n in zip(arrays.leaves.leaves, linear, squares, strict=True)
        ]
        columns = arrays.leaves.leaves, arrays.grads, linear, squares
        results = [self._advance(*row) for row in zip(*columns, strict=True)]
        points = [result.point for result in results]
        steps = [
            (penalty_sum * result.preconditioner).astype(result.preconditioner.dtype)
            for result in results
        ]
        moves = prox_moves(arrays, points, steps)
        tree = arrays.leaves.tree
        return tree(moves), FtrlState(
            linear_sum=tree(result.linear for result in results),
            square_sum=tree(result.square for result in results),
            penalty_sum=penalty_sum,
            led_steps=optax.safe_increment(state.led_steps),
            strength_factor=as_factor(factor),
        )

    def _advance(
        self, leaf: jax.Array, grad: jax.Array | None, z: jax.Array, n: jax.Array
    ) -> _Minimum:
        x = widened(leaf)
        if grad is not None:
            before, n = n, (n + (grad * jnp.conj(grad)).real).astype(n.dtype)
            # The roots are subtracted since H holds them, rounded. g^2 / (sum of the
            # roots) rounds differently, and would let z drift from -H x.
            increase = _root(n) - _root(before)
            z = (z + self.rate * grad - increase * x).astype(z.dtype)
        scale = (self.beta + _root(n)).astype(n.dtype)
        # `scale <= 0`, not `~(scale > 0)`: a NaN must propagate.
        is_unseen = scale <= 0
        inverse = jnp.where(is_unseen, 0, 1 / jnp.where(is_unseen, 1, scale))
        return _Minimum(jnp.where(is_unseen, x, -inverse * z), inverse, z, n)


class _Minimum(NamedTuple):
    """A leaf's minimum without the penalty, 1 / (beta + sqrt(n)), z and n.

    Where `beta + sqrt(n)` is 0 the preconditioner is 0 and the point the leaf itself.
    """

    point: jax.Array
    preconditioner: jax.Array
    linear: jax.Array
    square: jax.Array


def _root(n: jax.Array) -> jax.Array:
    """The square root, with the gradient 0 at 0."""
    is_positive = n > 0
    return jnp.where(is_positive, jnp.sqrt(jnp.where(is_positive, n, 1)), 0)


def _filled(leaf: jax.Array | jax.ShapeDtypeStruct, number: Number) -> jax.Array:
    dtype = jnp.finfo(wide_dtype(leaf)).dtype
    return jnp.full_like(leaf, number, dtype=dtype)


def _start(leaf: jax.Array | jax.ShapeDtypeStruct, scale: jax.Array) -> jax.Array:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return jnp.zeros_like(leaf, dtype=wide_dtype(leaf))
    return (-scale * widened(leaf)).astype(wide_dtype(leaf))
