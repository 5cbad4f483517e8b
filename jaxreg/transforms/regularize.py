"""The normal map: loss + penalty with exact zeros, around any optimizer.

The optimizer does not train the parameters `x` but a latent `z` behind them, with
`x = prox(z)`. It is handed `grad f(x) + (z - x) / prox_step` as the gradient of `z`.
By the definition of prox, `(z - x) / prox_step` is a subgradient of the penalty at `x`:
where this sum is 0, `x` is a stationary point of loss + penalty, whatever the optimizer
makes of its gradients. An entry of `x` is exactly 0 as long as its `z` stays in the
dead zone of the prox, and `z` may wander there without `x` moving: a stable support.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxreg._core.checks import check_numbers, check_params, check_prox
from jaxreg._core.messages import shown
from jaxreg._core.penalty import Number, Penalty, Tree, unrounded
from jaxreg._core.ranges import check_positive
from jaxreg.rules.by_path import Leaves, Part
from jaxreg.transforms._leaves import (
    INNER_UPDATES,
    NEW_STATE,
    Schedule,
    as_factor,
    at_count,
    check_schedule,
    check_state,
    check_updates,
    read_start,
    read_update,
    update_to,
)
from jaxreg.transforms.latent import (
    RegularizeState,
    check_inner,
    check_latents,
    start_of,
)


def regularize(
    optimizer: optax.GradientTransformation,
    penalty: Penalty,
    width: Number = 0.05,
    schedule: Schedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Minimises loss + penalty with exact zeros, whatever the optimizer.

    Give it the gradients of the loss alone. It costs one latent copy of the penalised
    leaves, in at least float32 (so bfloat16 weights do not stagnate); the updates have
    the parameters' dtype. Parameters may be edited between updates: the latent of an
    edited weight moves to the nearest latent of its new value, entry by entry. After
    loading another model, or with another penalty, call `tx.init(params)`. Put weight
    decay in the penalty (`ElasticNet`) and clipping inside the optimizer
    (`optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))`):
    `docs/what_no_transform_can_see.md` has the errors of the other ways.

    Args:
      optimizer: any Optax optimizer of plain gradients, learning rate included.
      penalty: any penalty with a prox; strength 0 is the plain optimizer, on float32
        copies of half-precision leaves.
      width: > 0, the dead zone in units of a weight: how far a latent must travel to
        revive a zero. 5 to 10 peak learning rates suit Adam-like optimizers; plain SGD
        needs a learning rate below 2 width / strength.
      schedule: a function of the step count (from 0) that returns a factor >= 0 on the
        penalty's force; the dead zone stays. None: the factor is 1.

    Raises:
      TypeError, ValueError: at the call, an argument out of range; at the first update
        a rule that catches no leaf, a leaf the penalty cannot take, missing params, a
        state of other parameters, or an optimizer that cannot work inside (a line
        search, lookahead, one that applies a penalty already).

    Reference: Robinson 1992, Normal maps induced by linear transformations; Qiu, Jiang
    and Milzarek 2023, A normal map-based proximal stochastic gradient method,
    arXiv 2305.05828, algorithm 1 (for SGD; no convergence theorem is known for other
    inner optimizers).

    >>> import jax, jax.numpy as jnp, optax, jaxreg
    >>> loss = lambda w: jnp.sum((w - jnp.array([2.0, 0.3])) ** 2)
    >>> tx = jaxreg.regularize(optax.sgd(0.05), jaxreg.L1(1.0))
    >>> w = jnp.zeros(2)
    >>> state = tx.init(w)
    >>> for _ in range(200):
    ...     updates, state = tx.update(jax.grad(loss)(w), state, w)
    ...     w = optax.apply_updates(w, updates)
    >>> print(f"{w[0]:.4f} {w[1]:.4f}")
    1.5000 0.0000
    """
    check_numbers(penalty, optimizer=optimizer)
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            f"regularize: optimizer is {shown(optimizer)}; allowed: an Optax "
            "optimizer, as in regularize(optax.adam(1e-3), jaxreg.L1(1e-4)); of "
            "optax.MultiSteps its gradient_transformation()"
        )
    check_prox("regularize", penalty)
    check_positive("regularize: width", width)
    check_schedule("regularize", schedule)
    inner = optax.with_extra_args_support(optimizer)

    def factor_of(_: Penalty, count: jax.Array) -> Number:
        return at_count(schedule, count)

    normal_map = NormalMap(inner, penalty, width, factor_of, lambda _: False)
    return optax.GradientTransformationExtraArgs(normal_map.init, normal_map.update)


@dataclasses.dataclass(frozen=True)
class NormalMap:
    """The transformation that `regularize` returns.

    `factor_of(penalty, count)` scales the penalty's force; if `is_free(penalty)`, the
    latent is the parameter itself.
    """

    inner: optax.GradientTransformationExtraArgs
    penalty: Penalty
    width: Number
    factor_of: Callable[[Penalty, jax.Array], Number]
    is_free: Callable[[Penalty], jax.Array | bool]

    def init(self, params: Tree) -> RegularizeState:
        leaves = read_start(self.penalty, params)
        latents: list[Any] = [optax.MaskedNode()] * len(leaves.leaves)
        for part in leaves.parts:
            starts = start_of(part.penalty, part.pick(leaves.leaves), self.width)
            for index, start in zip(part.indices, starts, strict=True):
                latents[index] = start
        return RegularizeState(
            latent=leaves.tree(latents),
            inner_optimizer=self.inner.init(_trained(leaves, latents)),
            update_count=jnp.zeros([], jnp.int32),
            strength_factor=jnp.ones([], jnp.float32),
            width=self._stored_width(),
        )

    def update(
        self,
        updates: Tree,
        state: RegularizeState,
        params: Tree | None = None,
        **extra_args: Any,
    ) -> tuple[Tree, RegularizeState]:
        leaves, latents, moves, state, _ = self.advance(
            updates, state, params, **extra_args
        )
        for index, target in self.prox(leaves, latents).items():
            moves[index] = update_to(target, leaves.leaves[index])
        return leaves.tree(moves), state

    def advance(
        self,
        updates: Tree,
        state: RegularizeState,
        params: Tree | None,
        **extra_args: Any,
    ) -> tuple[Leaves, list[Any], list[Any], RegularizeState, list[Any]]:
        """One step of the optimizer on the latents.

        Returns the leaves of the parameters, the new latents, the optimizer's update of
        each leaf (final for free leaves alone), the new state, and the gradients of the
        loss alone.
        """
        check_params("regularize", params)
        check_state("regularize", state, RegularizeState)
        check_inner(state.inner_optimizer, extra_args)
        leaves, grads, (latents,) = read_update(
            "regularize", self.penalty, updates, params, (state.latent,)
        )
        check_latents(leaves, latents, grads)
        loss_grads = list(grads)

        for part in leaves.parts:
            stored = part.pick(latents)
            # Once: outside jit, each of its operations costs as much as adam's.
            prox_step = part.penalty.step_for(self.width)
            # The prox of the stored latents, not params: these would be read twice
            # more. After an edit the force is off, but for one step alone.
            proxes = self._prox(part.penalty, stored, prox_step)
            nearest = self._nearest(part, leaves, latents, prox_step)
            factor = self.factor_of(part.penalty, state.update_count)
            rows = zip(part.indices, stored, proxes, nearest, strict=True)
            for index, latent, prox, new in rows:
                force = factor * ((latent - prox) / prox_step)
                # A NaN latent starts anew from its parameter.
                pushed = grads[index] + jnp.where(force == force, force, 0)
                grads[index] = pushed.astype(latent.dtype)
                latents[index] = new
        moves, inner_optimizer = self.inner.update(
            leaves.tree(grads),
            state.inner_optimizer,
            _trained(leaves, latents),
            **extra_args,
        )
        moves = leaves.like(moves, INNER_UPDATES, NEW_STATE)
        check_updates("regularize", leaves, moves, INNER_UPDATES)
        for index in leaves.penalised:
            if moves[index] is None:
                raise ValueError(
                    f"regularize: {INNER_UPDATES} has None at the penalised leaf "
                    f"{leaves.names[index]!r}, which had a gradient. Use an optimizer "
                    "that moves it, or leave it out of the rules"
                )
            latent = latents[index]
            latents[index] = (latent + moves[index]).astype(latent.dtype)
        factor = self.factor_of(self.penalty, state.update_count)
        return (
            leaves,
            latents,
            moves,
            RegularizeState(
                latent=leaves.tree(latents),
                inner_optimizer=inner_optimizer,
                update_count=optax.safe_increment(state.update_count),
                strength_factor=as_factor(factor),
                width=self._stored_width(),
            ),
            loss_grads,
        )

    def _stored_width(self) -> jax.Array:
        return jax.lax.convert_element_type(self.width, jnp.result_type(float))

    def prox(self, leaves: Leaves, latents: list[Any]) -> dict[int, jax.Array]:
        """The prox of the latents, by the index of the leaf."""
        out: dict[int, jax.Array] = {}
        for part in leaves.parts:
            step = part.penalty.step_for(self.width)
            proxes = self._prox(part.penalty, part.pick(latents), step)
            out.update(zip(part.indices, proxes, strict=True))
        return out

    def _prox(
        self, penalty: Penalty, latents: list[jax.Array], step: jax.Array
    ) -> list[jax.Array]:
        proxes = penalty.prox(latents, step)
        return self._unless_free(penalty, latents, proxes)

    def _nearest(
        self, part: Part, leaves: Leaves, latents: list[Any], step: jax.Array
    ) -> list[jax.Array]:
        """The latents, moved where the parameters have been edited."""
        params, stored = part.pick(leaves.leaves), part.pick(latents)
        nearest = part.penalty.nearest_latent(stored, params, step)
        free = list(map(unrounded, params, stored))
        return self._unless_free(part.penalty, free, nearest)

    def _unless_free(
        self, penalty: Penalty, free: list[jax.Array], penalised: list[jax.Array]
    ) -> list[jax.Array]:
        is_free = self.is_free(penalty)
        if is_free is False:
            return penalised
        # A traced step in the prox itself would make XLA:CPU hold another latent.
        pairs = zip(free, penalised, strict=True)
        return [jnp.where(is_free, *pair) for pair in pairs]


def _trained(leaves: Leaves, latents: list[Any]) -> Tree:
    """The arrays that the optimizer trains: latents, and parameters of free leaves."""
    return leaves.tree(
        leaf if isinstance(latent, optax.MaskedNode) else latent
        for latent, leaf in zip(latents, leaves.leaves, strict=True)
    )
