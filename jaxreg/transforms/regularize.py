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

from jaxreg._core.checks import (
    check_numbers,
    check_params,
    check_positive,
    check_prox,
)
from jaxreg._core.penalty import Number, Penalty, Tree, flatten_like, widened
from jaxreg.rules import by_path as rules
from jaxreg.transforms._leaves import (
    NEW_STATE,
    Schedule,
    as_factor,
    at_count,
    check_schedule,
    check_state,
)
from jaxreg.transforms.latent import (
    RegularizeState,
    check_latents,
    refuse_inner,
    start_of,
)
from jaxreg.transforms.rarely import when
from jaxreg.transforms.samples import cut_of, is_edited

_LATENT = "the latent in the state"


def regularize(
    optimizer: optax.GradientTransformation,
    penalty: Penalty,
    width: Number = 0.05,
    schedule: Schedule | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Minimises loss + penalty with exact zeros, whatever the optimizer.

    Give it the gradients of the loss alone. It costs one latent copy of the penalised
    leaves, in at least float32 (so bfloat16 weights do not stagnate); the updates have
    the parameters' dtype. After loading weights, or with another penalty, call
    `tx.init(params)`; edits are also noticed, in leaves of up to 262,144 entries by
    comparing all of them and in larger ones on a sample, and the latent starts anew.
    Weight decay belongs into the penalty (`ElasticNet`) and clipping into the optimizer
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
        search, lookahead).

    Reference: Robinson 1992, Normal maps induced by linear transformations; Qiu, Jiang
    and Milzarek 2023, A normal map-based proximal stochastic gradient method,
    arXiv 2305.05828, algorithm 1 (for SGD; no convergence theorem is known for other
    inner optimizers).

    >>> import jax, jax.numpy as jnp, optax, jaxreg
    >>> loss = lambda w: jnp.sum((w - jnp.array([2.0, 0.3])) ** 2)
    >>> tx = jaxreg.regularize(optax.sgd(0.02), jaxreg.L1(1.0))
    >>> w = jnp.zeros(2)
    >>> state = tx.init(w)
    >>> for _ in range(800):
    ...     updates, state = tx.update(jax.grad(loss)(w), state, w)
    ...     w = optax.apply_updates(w, updates)
    >>> print(f"{w[0]:.4f} {w[1]:.4f}")
    1.5000 0.0000
    """
    if not isinstance(optimizer, optax.GradientTransformation):
        raise TypeError(
            f"regularize: optimizer is {optimizer!r}; allowed: an Optax optimizer, as "
            "in regularize(optax.adam(1e-3), jaxreg.L1(1e-4)); of optax.MultiSteps its "
            "gradient_transformation()"
        )
    check_numbers(penalty)
    check_prox("regularize", penalty)
    check_positive("regularize: width", width)
    check_schedule("regularize", schedule)
    inner = optax.with_extra_args_support(optimizer)

    def factor_of(_: Penalty, count: jax.Array) -> Any:
        return at_count(schedule, count)

    normal_map = NormalMap(inner, penalty, width, factor_of, lambda _: False)
    return optax.GradientTransformationExtraArgs(normal_map.init, normal_map.update)


@dataclasses.dataclass(frozen=True)
class NormalMap:
    """The transformation that `regularize` returns.

    Of each penalty at work, `factor_of` says what its force is multiplied by at a step
    count, and `is_free` whether its latents are the parameters, without a dead zone.
    """

    inner: optax.GradientTransformationExtraArgs
    penalty: Penalty
    width: Number
    factor_of: Callable[[Penalty, jax.Array], Any]
    is_free: Callable[[Penalty], Any]

    def init(self, params: Tree) -> RegularizeState:
        leaves, treedef = jax.tree.flatten(params)
        latents: list[Any] = [optax.MaskedNode()] * len(leaves)
        for part in rules.parts(self.penalty, params):
            starts = start_of(part.penalty, part.of(leaves), self.width)
            for place, start in zip(part.places, starts, strict=True):
                latents[place] = start
        trained = jax.tree.unflatten(treedef, map(_latent_or_free, latents, leaves))
        return RegularizeState(
            latent=jax.tree.unflatten(treedef, latents),
            inner_optimizer=self.inner.init(trained),
            update_count=jnp.zeros([], jnp.int32),
            strength_factor=jnp.ones([], jnp.float32),
        )

    def update(
        self,
        updates: Tree,
        state: RegularizeState,
        params: Tree | None = None,
        **extra_args: Any,
    ) -> tuple[Tree, RegularizeState]:
        check_params("regularize", params)
        check_state("regularize", state, RegularizeState)
        refuse_inner(state.inner_optimizer, extra_args)
        parts = rules.check(self.penalty, params)
        leaves, treedef = jax.tree.flatten(params)
        leaves = [jnp.asarray(leaf) for leaf in leaves]
        grads = flatten_like(treedef, updates, "updates", NEW_STATE)
        latents = flatten_like(treedef, state.latent, _LATENT, NEW_STATE)
        check_latents(parts, latents, grads, leaves, params)

        latents = self._restart_edited(parts, latents, leaves)
        grads = self._pushed(parts, latents, grads, state.update_count)
        moves, inner_optimizer = self.inner.update(
            jax.tree.unflatten(treedef, grads),
            state.inner_optimizer,
            jax.tree.unflatten(treedef, map(_latent_or_free, latents, leaves)),
            **extra_args,
        )
        moves = flatten_like(treedef, moves, "the updates of the optimizer", NEW_STATE)
        for place in (place for part in parts for place in part.places):
            moved = latents[place] + moves[place]
            latents[place] = moved.astype(latents[place].dtype)
        for place, target in self.prox(parts, latents).items():
            # The params' own dtype: optax.apply_if_finite refuses any other. What
            # rounding loses here, the latent still holds at the next step.
            moves[place] = (target - leaves[place]).astype(leaves[place].dtype)
        return jax.tree.unflatten(treedef, moves), RegularizeState(
            latent=jax.tree.unflatten(treedef, latents),
            inner_optimizer=inner_optimizer,
            update_count=optax.safe_increment(state.update_count),
            strength_factor=as_factor(self.factor_of(self.penalty, state.update_count)),
        )

    def _pushed(
        self, parts: list[rules.Part], latents: list[Any], grads: list[Any], count: Any
    ) -> list[Any]:
        """The gradients plus the penalty's force, a subgradient at the fresh prox."""
        proxes, out = self.prox(parts, latents), list(grads)
        for part in parts:
            step = part.penalty.step_for(self.width)
            factor = self.factor_of(part.penalty, count)
            for place in part.places:
                force = (latents[place] - proxes[place]) / step
                pushed = grads[place] + factor * force
                out[place] = pushed.astype(latents[place].dtype)
        return out

    def prox(self, parts: list[rules.Part], latents: list[Any]) -> dict[int, Any]:
        """The prox of the latents, by the place of the leaf."""
        out: dict[int, Any] = {}
        for part in parts:
            proxes = self._prox_of(part.penalty, part.of(latents))
            out.update(zip(part.places, proxes, strict=True))
        return out

    def _prox_of(self, penalty: Penalty, latents: list[Any]) -> list[Any]:
        proxes = penalty.prox(latents, penalty.step_for(self.width))
        return self._unless_free(penalty, latents, proxes)

    def _unless_free(
        self, penalty: Penalty, same: list[Any], other: list[Any]
    ) -> list[Any]:
        is_free = self.is_free(penalty)
        if is_free is False:
            return other
        # A traced step in the prox itself would make XLA:CPU hold another latent.
        return [jnp.where(is_free, *pair) for pair in zip(same, other, strict=True)]

    def _restart_edited(
        self, parts: list[rules.Part], latents: list[Any], leaves: list[Any]
    ) -> list[Any]:
        """The latents, with those of edited weights started anew."""
        edited: dict[int, jax.Array] = {}
        for part in parts:
            edited |= self._edited(part, latents, leaves)
        in_leaves = {place: flag for place, flag in edited.items() if not flag.ndim}
        alone = {place: flag for place, flag in edited.items() if flag.ndim}
        latents = self._restarted(parts, latents, leaves, alone, is_by_entry=True)
        if not in_leaves:
            return latents
        # Once for all leaves: the common step moves no word for it, and waits for one
        # predicate on a GPU.
        return when(
            jnp.any(jnp.stack(list(in_leaves.values()))),
            lambda old: self._restarted(parts, old, leaves, in_leaves),
            latents,
        )

    def _restarted(
        self,
        parts: list[rules.Part],
        latents: list[Any],
        leaves: list[Any],
        edited: dict[int, jax.Array],
        is_by_entry: bool = False,
    ) -> list[Any]:
        """The latents, new where a leaf or an entry was edited."""
        out = list(latents)
        for part in parts:
            places = [place for place in part.places if place in edited]
            if not places:
                continue
            wide = [widened(leaves[place]) for place in places]
            fresh = start_of(part.penalty, wide, self.width)
            fresh = self._unless_free(part.penalty, wide, fresh)
            is_new = [edited[place] for place in places]
            if not is_by_entry:
                # What is not zero has one latent; a zero's says how far off it is.
                dead = self._dead(part.penalty, wide, [out[place] for place in places])
                is_new = [flag & ~zero for flag, zero in zip(is_new, dead, strict=True)]
            for place, flag, new in zip(places, is_new, fresh, strict=True):
                out[place] = jnp.where(flag, new, out[place])
        return out

    def _dead(
        self, penalty: Penalty, leaves: list[Any], latents: list[Any]
    ) -> list[jax.Array]:
        """Where leaves are zero and so is the prox of their latents."""
        points = self._prox_of(penalty, list(map(penalty.pooled, latents)))
        return [
            (penalty.pooled(leaf) == 0) & (point == 0)
            for leaf, point in zip(leaves, points, strict=True)
        ]

    def _edited(
        self, part: rules.Part, latents: list[Any], leaves: list[Any]
    ) -> dict[int, jax.Array]:
        """What differs from its latent's prox, by the place of the leaf.

        The entries of a small leaf where each has a prox of its own, else whether a
        sample of the leaf does.
        """
        cuts = {place: cut_of(part.penalty, leaves[place]) for place in part.places}
        samples = [cut(latents[place]) for place, cut in cuts.items()]
        proxes = self._prox_of(part.penalty, samples)
        return {
            place: is_edited(part.penalty, leaves[place], cut, prox, self.width)
            for (place, cut), prox in zip(cuts.items(), proxes, strict=True)
        }


def _latent_or_free(latent_leaf: Any, leaf: Any) -> Any:
    return leaf if isinstance(latent_leaf, optax.MaskedNode) else latent_leaf
