"""A wanted fraction of zeros: a controller on the strength, and an exact landing."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxreg._core.penalty import Number, Penalty, Tree, flatten_like
from jaxreg._numerics.largest import largest
from jaxreg.rules import by_path as rules
from jaxreg.transforms._leaves import NEW_STATE, check_state, is_dead
from jaxreg.transforms._ramp import (
    Ramp,
    counted,
    makes_zeros,
    relative,
    zero_share,
    zeroing,
)
from jaxreg.transforms.latent import RegularizeState
from jaxreg.transforms.rarely import when
from jaxreg.transforms.regularize import NormalMap, regularize


class TargetSparsityState(NamedTuple):
    """The state of `regularize`, the next factor, and what was seen of zeros.

    `reached` is the share of zero units at the last look, `cut` the share that the
    landing zeroed.
    """

    regularize: RegularizeState
    next_factor: jax.Array
    reached: jax.Array
    cut: jax.Array


def target_sparsity(
    optimizer: optax.GradientTransformation,
    penalty: Penalty,
    target: Number,
    end_step: int,
    *,
    begin_step: int = 0,
    factor_range: tuple[float, float] = (0.1, 1e4),
    width: Number = 0.05,
) -> optax.GradientTransformationExtraArgs:
    r"""`regularize` to a wanted fraction of zeros: reached at `end_step`, then held.

    Units are what the penalty zeroes as one: groups where a rule has groups, and the
    leaves of rules without are then not counted; else single entries. Their fraction of
    zeros is to follow `target (1 - (1 - r)^3)`, with r from 0 at `begin_step` to 1 at
    `end_step`. A hundred times on the way the factor on their strengths is multiplied
    by

        `exp(0.1 clip(log(alive / wanted), -1, 1))`

    and kept in `factor_range`: `alive` is the share of units that are not zero, as it
    will be in ten looks if it goes on as since the last, and `wanted` that of the ramp
    then, plus 15 % of it. At `end_step` a landing zeroes the smallest units that are
    too many, measured by the root mean square of those in their leaf; of equal ones the
    later. From then on zeros stay zero, and the rest trains without these penalties (of
    an `ElasticNet` its L2 part goes too). If more units are zero already than asked
    for, none is revived: the state's `reached`, the share of zero units at the last
    look, says so, and `cut` what the landing had to zero.

    Rules without a kink at 0 (`L2`), and constraints, act all the time as under
    `regularize`. Let the learning rate have most of its schedule behind it when the
    landing comes: `end_step` at 70 to 85 % of the steps leaves time to work off what
    was cut. A run that is restored after `end_step` was moved before its step count
    never lands.

    Args:
      optimizer: as in `regularize`.
      penalty: with a kink at 0, as `L1` or `GroupLasso`, or rules with such penalties.
        Take a strength that leaves fewer zeros than wanted, by a factor of up to 30: if
        it is far too weak the landing has to cut much.
      target: the fraction of zero units, from 0 to below 1.
      end_step: the number of updates until the landing.
      begin_step: the number of updates before the fraction begins to rise.
      factor_range: the least and the largest factor on the strength; the latter keeps
        the strength from running away when the target is out of reach. Plain SGD needs
        a learning rate below 2 width / (strength factor).
      width: as in `regularize`.

    Raises:
      TypeError, ValueError: as `regularize`; penalties none of which zeroes entries or
        groups, a number out of range.

    Reference: Zhu and Gupta 2017, To prune, or not to prune, eq. 1 (the cubic ramp).

    >>> import jax, jax.numpy as jnp, optax, jaxreg
    >>> goal = jnp.array([3.0, 0.1, -2.0, 0.7])
    >>> tx = jaxreg.target_sparsity(optax.sgd(0.02), jaxreg.L1(0.01), 0.5, end_step=300)
    >>> w = jnp.zeros(4)
    >>> state = tx.init(w)
    >>> for _ in range(600):
    ...     updates, state = tx.update(w - goal, state, w)
    ...     w = optax.apply_updates(w, updates)
    >>> print([f"{x:.2f}" for x in w], float(state.reached))
    ['3.00', '0.00', '-2.00', '0.00'] 0.5
    """
    # It refuses what it cannot work with.
    regularize(optimizer, penalty, width)
    ramp = Ramp(target, begin_step, end_step, factor_range)
    ramp.check()
    if not any(map(makes_zeros, rules.members(penalty))):
        raise TypeError(
            f"target_sparsity({penalty!r}): it zeroes no entries or groups that could "
            "be counted. Allowed are penalties with a kink at 0, such as L1(1e-4) and "
            "GroupLasso(1e-3, group_axis=0), weighted or scaled, and by_path of them"
        )
    inner = optax.with_extra_args_support(optimizer)
    steered = _Steered(inner, penalty, width, ramp)
    return optax.GradientTransformationExtraArgs(steered.init, steered.update)


@dataclasses.dataclass(frozen=True)
class _Steered:
    """The transformation that `target_sparsity` returns."""

    inner: optax.GradientTransformationExtraArgs
    penalty: Penalty
    width: Number
    ramp: Ramp

    def init(self, params: Tree) -> TargetSparsityState:
        state = self._map(False, jnp.ones([])).init(params)
        one = jnp.ones([], jnp.float32)
        return TargetSparsityState(state, one, jnp.zeros_like(one), jnp.zeros_like(one))

    def update(
        self,
        updates: Tree,
        state: TargetSparsityState,
        params: Tree | None = None,
        **extra_args: Any,
    ) -> tuple[Tree, TargetSparsityState]:
        check_state("target_sparsity", state, TargetSparsityState)
        is_held = state.regularize.update_count >= self.ramp.end_step
        normal_map = self._map(is_held, state.next_factor)
        updates, new = normal_map.update(
            updates, state.regularize, params, **extra_args
        )
        parts = list(rules.parts(self.penalty, params))
        leaves, treedef = jax.tree.flatten(params)
        moves = flatten_like(treedef, updates, "updates", NEW_STATE)
        latents = flatten_like(treedef, new.latent, "the latent", NEW_STATE)

        def land(carry: Any) -> Any:
            return self._landed(parts, carry[0])

        count = new.update_count
        landing = (latents, state.cut)
        latents, cut = when(count == self.ramp.end_step, land, landing)
        after = self._map(count >= self.ramp.end_step, state.next_factor)
        for place, target in after.prox(parts, latents).items():
            leaf = jnp.asarray(leaves[place])
            moves[place] = (target - leaf).astype(leaf.dtype)
        factor, reached = self._looked(parts, latents, state, count)
        new = new._replace(
            latent=jax.tree.unflatten(treedef, latents),
            strength_factor=jnp.where(is_held, 0.0, state.next_factor),
        )
        moved = jax.tree.unflatten(treedef, moves)
        return moved, TargetSparsityState(new, factor, reached, cut)

    def _map(self, is_held: Any, factor: jax.Array) -> NormalMap:
        """The normal map: it steers what makes zeros, and once held lets go of it."""

        def is_free(penalty: Penalty) -> Any:
            return is_held if makes_zeros(penalty) else False

        def factor_of(penalty: Penalty, _: jax.Array) -> Any:
            return factor if makes_zeros(penalty) else 1.0

        inner = _holding(self.inner, self.penalty, is_held)
        return NormalMap(inner, self.penalty, self.width, factor_of, is_free)

    def _looked(
        self,
        parts: list[rules.Part],
        latents: list[Any],
        state: TargetSparsityState,
        count: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """The next factor and the share of zeros, after a look if one is due."""

        def look(seen: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            is_held = count >= self.ramp.end_step
            zero = self._zero_share(parts, latents, is_held)
            return self.ramp.answer(*seen, zero, count), zero

        seen = state.next_factor, state.reached
        return when(self.ramp.looks(count), look, seen)

    def _zero_share(
        self, parts: list[rules.Part], latents: list[Any], is_held: Any
    ) -> jax.Array:
        points = self._map(is_held, jnp.ones([])).prox(parts, latents)
        return zero_share([p.unit_sizes(points[i]) for p, i in counted(parts, points)])

    def _landed(
        self, parts: list[rules.Part], latents: list[Any]
    ) -> tuple[list[Any], jax.Array]:
        """Latents that are let go, less the units too many, and the share of these."""
        points = self._map(False, jnp.ones([])).prox(parts, latents)
        chosen = counted(parts, points)
        sizes = [penalty.unit_sizes(points[place]) for penalty, place in chosen]
        before, total = zero_share(sizes), sum(size.size for size in sizes)
        ranked = list(map(relative, sizes))
        masks = largest(ranked, self.ramp.kept(total)) if total else []
        for (penalty, place), mask in zip(chosen, masks, strict=False):
            point = points[place]
            points[place] = jnp.where(penalty.spread(mask, point.shape), point, 0)
        out = list(latents)
        for part in zeroing(parts):
            for place in part.places:
                out[place] = points[place]
        return out, self._zero_share(parts, out, True) - before


def _holding(
    optimizer: optax.GradientTransformationExtraArgs, penalty: Penalty, is_held: Any
) -> optax.GradientTransformationExtraArgs:
    """The optimizer, under which zeros of a latent stay where they are once held."""

    def update(
        updates: Tree, state: Any, params: Tree | None = None, **extra_args: Any
    ) -> tuple[Tree, Any]:
        latents, treedef = jax.tree.flatten(params)
        held = {
            place: is_held & is_dead(part.penalty, latents[place])
            for part in zeroing(list(rules.parts(penalty, params)))
            for place in part.places
        }

        def masked(tree: Tree) -> Tree:
            leaves = flatten_like(treedef, tree, "updates", NEW_STATE)
            for place, stays in held.items():
                leaves[place] = jnp.where(stays, 0, leaves[place])
            return jax.tree.unflatten(treedef, leaves)

        # A clip in the optimizer must not see what does not train.
        moves, state = optimizer.update(masked(updates), state, params, **extra_args)
        return masked(moves), state

    return optax.GradientTransformationExtraArgs(optimizer.init, update)
