"""A wanted fraction of zeros: a controller on the strength, and an exact landing."""

from __future__ import annotations

import dataclasses
import numbers
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxreg import rules
from jaxreg.calculus.grouped import GroupPenalty
from jaxreg.calculus.lift import Lift
from jaxreg.calculus.nonnegative import MagnitudePenalty
from jaxreg.checks import check_positive, is_known
from jaxreg.constraints._largest import largest
from jaxreg.in_groups import WholeGroups
from jaxreg.leafwise import Elementwise
from jaxreg.penalties import SLOPE, FusedLasso
from jaxreg.penalty import Number, Penalty, Tree, flatten_like
from jaxreg.transforms.latent import RegularizeState, start_of
from jaxreg.transforms.regularize import NormalMap, regularize
from jaxreg.transforms.targets import is_dead, when

_LOOKS, _AHEAD, _MARGIN, _GAIN = 100, 10, 0.15, 0.1

# What these zero are single entries or whole groups, so that either can be counted.
_ZEROING = (Elementwise, WholeGroups, MagnitudePenalty, SLOPE, FusedLasso)


class TargetSparsityState(NamedTuple):
    """The state of `regularize`, the next factor, and the share of zero units seen."""

    regularize: RegularizeState
    next_factor: jax.Array
    reached: jax.Array


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
    `end_step`. A hundred times on the way the factor on all strengths is multiplied by

        `exp(0.1 clip(log(alive / wanted), -1, 1))`

    and kept in `factor_range`: `alive` is the share of units that are not zero, as it
    will be in ten looks if it goes on as since the last, and `wanted` that of the ramp
    then, plus 15 % of it. At `end_step` a landing zeroes the smallest units that are
    too many, measured by the root mean square of those in their leaf; of equal ones the
    later. From then on zeros stay zero, in all leaves of the penalty, and the rest
    trains without its kink (an `L2` among the rules stays). If more units are zero
    already than asked for, none is revived: `reached` in the state, the share of zero
    units at the last look, says so.

    Let the learning rate have most of its schedule behind it when the landing comes:
    `end_step` at 75 to 85 % of the steps leaves time to work off what was cut.

    Args:
      optimizer: as in `regularize`.
      penalty: with a kink at 0, as `L1` or `GroupLasso`, or rules of such penalties.
        Its strength, times the lower end of `factor_range`, is the least that acts;
        take one that leaves fewer zeros than wanted.
      target: the fraction of zero units, from 0 to below 1.
      end_step: the number of updates until the landing.
      begin_step: the number of updates before the fraction begins to rise.
      factor_range: the least and the largest factor on the strength; the latter keeps
        the strength from running away when the target is out of reach.
      width: as in `regularize`.

    Raises:
      TypeError, ValueError: as `regularize`; a constraint, a penalty that never makes
        zeros, a number out of range.

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
    ramp = _Ramp(target, begin_step, end_step, factor_range)
    ramp.check()
    if not any(map(_makes_zeros, rules.members(penalty))):
        raise TypeError(
            f"target_sparsity({penalty!r}): it zeroes no entries or groups that could "
            "be counted. Allowed are penalties with a kink at 0, such as L1(1e-4) and "
            "GroupLasso(1e-3, group_axis=0), and by_path of them"
        )
    inner = optax.with_extra_args_support(optimizer)
    steered = _Steered(NormalMap(inner, penalty, width, None), ramp)
    return optax.GradientTransformationExtraArgs(steered.init, steered.update)


@dataclasses.dataclass(frozen=True)
class _Ramp:
    """When the zeros are to come, and how the factor answers to their share."""

    target: Number
    begin_step: int
    end_step: int
    factor_range: tuple[float, float]

    def check(self) -> None:
        if is_known(lambda x: (x < 0) | (x >= 1) | (x != x), self.target):
            raise ValueError(
                f"target_sparsity: target is {self.target}; allowed: the fraction of "
                "zeros, from 0 to below 1"
            )
        for name, least in (("end_step", 1), ("begin_step", 0)):
            steps = getattr(self, name)
            if not isinstance(steps, numbers.Integral) or steps < least:
                raise ValueError(
                    f"target_sparsity: {name} is {steps!r}; allowed: a number of "
                    f"updates, an int >= {least}. Under optax.inject_hyperparams name "
                    "it in static_args"
                )
        if self.begin_step >= self.end_step:
            raise ValueError(
                f"target_sparsity: begin_step is {self.begin_step} and end_step "
                f"{self.end_step}; allowed: a begin before the end"
            )
        low, high = self.factor_range
        check_positive("target_sparsity: the lower end of factor_range", low)
        if low > 1 or high < 1:
            raise ValueError(
                f"target_sparsity: factor_range is {self.factor_range}; allowed: two "
                "numbers around 1, where the factor starts"
            )

    @property
    def interval(self) -> int:
        """The number of updates between two looks at the zeros."""
        return max(self.end_step // _LOOKS, 1)

    def answer(
        self, factor: jax.Array, before: jax.Array, zero: jax.Array, count: jax.Array
    ) -> jax.Array:
        """The factor after a look at the share of zero units, once `before`."""
        then = count + _AHEAD * self.interval - self.begin_step
        progress = jnp.clip(then / (self.end_step - self.begin_step), 0.0, 1.0)
        wanted = 1 - self.target * (1 - (1 - progress) ** 3)
        wanted = jnp.minimum(wanted * (1 + _MARGIN), 1.0)
        # What dies is slow to answer: without looking ahead the factor runs too far.
        alive = jnp.log(1 - zero)
        ahead = alive + _AHEAD * (alive - jnp.log(1 - before))
        excess = jnp.nan_to_num(ahead, nan=-jnp.inf) - jnp.log(wanted)
        moved = factor * jnp.exp(_GAIN * jnp.clip(excess, -1.0, 1.0))
        return jnp.clip(moved, *self.factor_range).astype(jnp.float32)

    def looks(self, count: jax.Array) -> jax.Array:
        """Whether the zeros are counted after this many updates."""
        is_due = (count % self.interval == 0) & (count < self.end_step)
        return is_due | (count == self.end_step)


@dataclasses.dataclass(frozen=True)
class _Steered:
    """The transformation that `target_sparsity` returns."""

    normal_map: NormalMap
    ramp: _Ramp

    def init(self, params: Tree) -> TargetSparsityState:
        one = jnp.ones([], jnp.float32)
        return TargetSparsityState(
            self.normal_map.init(params), one, jnp.zeros_like(one)
        )

    def update(
        self,
        updates: Tree,
        state: TargetSparsityState,
        params: Tree | None = None,
        **extra_args: Any,
    ) -> tuple[Tree, TargetSparsityState]:
        is_held = state.regularize.update_count >= self.ramp.end_step
        before = self._map_at(is_held, state.next_factor)
        updates, new = before.update(updates, state.regularize, params, **extra_args)
        parts = rules.check(before.penalty, params)
        leaves, treedef = jax.tree.flatten(params)
        leaves = [jnp.asarray(leaf) for leaf in leaves]
        moves = flatten_like(treedef, updates, "updates", "report this error")
        latents = flatten_like(treedef, new.latent, "the latent", "report this error")
        for part in parts:
            for place in part.places:
                stays = is_held & is_dead(part.penalty, leaves[place])
                latents[place] = jnp.where(stays, 0, latents[place])

        count = new.update_count
        is_end = count == self.ramp.end_step
        latents = when(is_end, lambda old: self._landed(parts, old), latents)
        after = self._map_at(count >= self.ramp.end_step, state.next_factor)
        for place, target in after.prox(parts, latents).items():
            moves[place] = (target - leaves[place]).astype(leaves[place].dtype)

        def look(old: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            zero = _zero_share(parts, after.prox(parts, latents))
            return self.ramp.answer(*old, zero, count), zero

        seen = when(self.ramp.looks(count), look, (state.next_factor, state.reached))
        new = new._replace(latent=jax.tree.unflatten(treedef, latents))
        return jax.tree.unflatten(treedef, moves), TargetSparsityState(new, *seen)

    def _map_at(self, is_held: Any, factor: jax.Array) -> NormalMap:
        """The normal map; once held without a dead zone, so that survivors are free."""
        width = jnp.where(is_held, 0.0, self.normal_map.width)
        return dataclasses.replace(
            self.normal_map, width=width, schedule=lambda _: factor
        )

    def _landed(self, parts: list[rules.Part], latents: list[Any]) -> list[Any]:
        """Latents without a dead zone, with the units that were too many at zero."""
        points = self.normal_map.prox(parts, latents)
        places = [
            (part.penalty, place)
            for part in _counted(parts, points)
            for place in part.places
        ]
        sizes = [
            _relative(penalty.unit_sizes(points[place])) for penalty, place in places
        ]
        total = sum(size.size for size in sizes)
        kept = jnp.round((1 - jnp.asarray(self.ramp.target)) * total).astype(jnp.int32)
        for (penalty, place), mask in zip(places, largest(sizes, kept), strict=True):
            point = points[place]
            points[place] = jnp.where(penalty.spread(mask, point.shape), point, 0)
        out = list(latents)
        for part in parts:
            starts = start_of(part.penalty, [points[p] for p in part.places], 0.0)
            for place, start in zip(part.places, starts, strict=True):
                out[place] = start
        return out


def _relative(sizes: jax.Array) -> jax.Array:
    """Sizes in units of the root mean square of those in the leaf that are not zero.

    Layers differ in scale: by plain sizes a landing can empty the finest of them.
    """
    alive = jnp.maximum(jnp.sum(sizes > 0), 1)
    scale = jnp.sqrt(jnp.sum(sizes**2) / alive)
    return sizes / jnp.where(scale > 0, scale, 1.0)


def _counted(parts: list[rules.Part], leaves: Any) -> list[rules.Part]:
    """The rules whose zeros count: those with groups, else all that make zeros."""
    zeroing = [part for part in parts if _makes_zeros(part.penalty)]

    def has_groups(part: rules.Part) -> bool:
        units = [jax.eval_shape(part.penalty.unit_sizes, x) for x in part.of(leaves)]
        return sum(x.size for x in units) < sum(x.size for x in part.of(leaves))

    return [part for part in zeroing if has_groups(part)] or zeroing


def _zero_share(parts: list[rules.Part], points: dict[int, jax.Array]) -> jax.Array:
    """The share of zeros among the units that count."""
    sizes = [
        part.penalty.unit_sizes(points[place])
        for part in _counted(parts, points)
        for place in part.places
    ]
    zeros = sum((jnp.sum(size == 0) for size in sizes), start=jnp.zeros((), jnp.int32))
    total = sum(size.size for size in sizes)
    return (zeros / max(total, 1)).astype(jnp.float32)


def _makes_zeros(penalty: Penalty) -> bool:
    """Whether its prox zeroes entries or groups, as far as its numbers are known."""
    while isinstance(penalty, Lift):
        penalty = penalty.penalty
    scalar = penalty.magnitude if isinstance(penalty, GroupPenalty) else penalty
    is_smooth = isinstance(scalar, Elementwise) and is_known(
        lambda slope: slope <= 0, scalar.slope_at_zero
    )
    return isinstance(penalty, _ZEROING) and not is_smooth
