"""A wanted fraction of zeros: a controller on the strength, and an exact landing."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax

from jaxreg._core.alike import kinds_of, per_array, stacked, unstacked
from jaxreg._core.groups import check_count
from jaxreg._core.messages import shown
from jaxreg._core.penalty import Number, Penalty, Tree, widened
from jaxreg._core.ranges import is_known
from jaxreg._numerics.largest import largest_of_each, largest_of_stacks, total_count
from jaxreg.rules.by_path import Leaves, Part, penalties_of
from jaxreg.transforms._leaves import (
    INNER_UPDATES,
    NEW_STATE,
    check_state,
    check_updates,
    update_to,
    zeroed_units,
)
from jaxreg.transforms._ramp import (
    Ramp,
    counted_parts,
    first_share,
    makes_zeros,
    ranks_of,
    zeroing_parts,
)
from jaxreg.transforms.latent import RegularizeState
from jaxreg.transforms.regularize import NormalMap, regularize

T = TypeVar("T")
# A revived unit starts from this share of its latent, which was within the dead zone.
_REVIVED = 0.1


class TargetSparsityState(NamedTuple):
    """The state of `regularize`, the next factor, and counts of units.

    `next_factor` is 0 until a gradient has been seen. `reached` is the share of zero
    units at the last check, `cut` the share that the landing zeroed, and `missed_units`
    how many more (or, negative, fewer) than wanted survived it.
    """

    regularize: RegularizeState
    next_factor: jax.Array
    reached: jax.Array
    cut: jax.Array
    missed_units: jax.Array


def target_sparsity(
    optimizer: optax.GradientTransformation,
    penalty: Penalty,
    target: Number,
    end_step: int,
    *,
    begin_step: int = 0,
    keep_at_least: int = 1,
    factor_range: tuple[float, float] = (1e-9, 1e9),
    width: Number = 0.05,
) -> optax.GradientTransformationExtraArgs:
    r"""`regularize` to a wanted fraction of zeros: reached at `end_step`, then held.

    Units are the groups of the penalty; leaves of rules without groups are not
    counted. If no rule has groups, units are single entries. Their fraction of zeros
    follows `target (1 - (1 - r)^3)`, with r from 0 at `begin_step` to 1 at `end_step`.
    The strengths get a factor, which the first gradients set: there the penalty
    balances a tenth of their root mean square, or all of it if it is not convex and so
    has less force on what has grown. Of several strengths only the ratios matter. A
    hundred times on the way the factor is multiplied by

        `exp(0.2 clip(log(alive / wanted), -1, 1))`

    and clipped to `factor_range`. Here `alive` is the share of units that are not zero,
    extrapolated ten checks ahead from the last trend, and `wanted` the nearest share
    between the target's and that of the ramp at that time, each plus 15 %. If a check
    finds fewer units alive than the target wants, it revives those with the largest
    latents. At `end_step` a landing zeroes the smallest surplus units, relative to the
    root mean square of the non-zero units in their leaf; of equal units, the last. From
    then on zeros stay zero, and the rest trains without these penalties (for an
    `ElasticNet`, also without its L2 part).

    Rules without a kink at 0 (`L2`), and constraints, act all the time as under
    `regularize`. Let most of the learning rate schedule pass before the landing:
    `end_step` at 70 to 85 % of the steps leaves time to recover from the cut. If a run
    is restored with an `end_step` below its step count, it never lands.

    The number is missed only where `keep_at_least` asks for more units, or where units
    have neither weights nor gradients to be revived by. The state counts it as
    `missed_units`; `measure(..., opt_state=)` returns that number and, outside jit,
    warns if it is not 0, as the landing itself does.

    Args:
      optimizer: as in `regularize`.
      penalty: with a kink at 0, as `L1` or `GroupLasso`, or rules with such penalties.
        The knot of an `MCP` or `SCAD` should lie above most weights at the start:
        beyond it they exert no force.
      target: the fraction of zero units, from 0 to below 1.
      end_step: the number of updates until the landing.
      begin_step: the number of updates before the fraction begins to rise; until then
        the first factor stays.
      keep_at_least: the number of units that every leaf keeps, even if fewer zeros
        remain than wanted; 0 lets leaves be emptied.
      factor_range: the least and the largest factor on the strength. Plain SGD needs
        a learning rate below 2 width / (strength factor).
      width: as in `regularize`.

    Raises:
      TypeError, ValueError: as `regularize`; penalties none of which zeroes entries or
        groups, a number out of range.

    Reference: Zhu and Gupta 2017, To prune, or not to prune, eq. 1 (the cubic ramp).

    >>> import jax, jax.numpy as jnp, optax, jaxreg
    >>> goal = jnp.array([3.0, 0.1, -2.0, 0.7])
    >>> tx = jaxreg.target_sparsity(optax.sgd(0.05), jaxreg.L1(0.01), 0.5, end_step=100)
    >>> w = jnp.zeros(4)
    >>> state = tx.init(w)
    >>> for _ in range(250):
    ...     updates, state = tx.update(w - goal, state, w)
    ...     w = optax.apply_updates(w, updates)
    >>> print([f"{x:.2f}" for x in w], float(state.reached))
    ['3.00', '0.00', '-2.00', '0.00'] 0.5
    """
    # Raises on invalid arguments.
    regularize(optimizer, penalty, width)
    ramp = Ramp(target, begin_step, end_step, factor_range)
    ramp.check()
    check_count("target_sparsity: keep_at_least", keep_at_least)
    if not any(map(makes_zeros, penalties_of(penalty))):
        raise TypeError(
            f"target_sparsity({shown(penalty)}): it zeroes no entries or groups that "
            "could be counted. Allowed are penalties with a kink at 0, such as "
            "L1(1e-4) and GroupLasso(1e-3, group_axis=0), weighted or scaled, and "
            "by_path of them"
        )
    inner = optax.with_extra_args_support(optimizer)
    transform = _TargetSparsity(inner, penalty, width, ramp, keep_at_least)
    return optax.GradientTransformationExtraArgs(transform.init, transform.update)


class _Numbers(NamedTuple):
    """The scalars of the state, which a cond returns without copying leaves."""

    next_factor: jax.Array
    reached: jax.Array
    cut: jax.Array
    missed_units: jax.Array


@dataclasses.dataclass(frozen=True)
class _TargetSparsity:
    """The transformation that `target_sparsity` returns."""

    inner: optax.GradientTransformationExtraArgs
    penalty: Penalty
    width: Number
    ramp: Ramp
    keep_at_least: int

    def init(self, params: Tree) -> TargetSparsityState:
        state = self._map(False, jnp.ones([])).init(params)
        factor = jnp.zeros([], jnp.float32)
        shares = jnp.zeros_like(factor), jnp.zeros_like(factor)
        return TargetSparsityState(state, factor, *shares, jnp.zeros([], jnp.int32))

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
        leaves, latents, moves, new, grads = normal_map.advance(
            updates, state.regularize, params, **extra_args
        )
        count = new.update_count
        is_landing = count == self.ramp.end_step
        points = normal_map.prox(leaves, latents)
        masks, numbers = _either(
            self.ramp.is_check_due(count),
            lambda: self._check(leaves, latents, state, count),
            lambda: (_no_masks(leaves, points), _Numbers(*state[1:])),
        )
        for index, mask in _by_leaf(leaves, points, masks).items():
            point, latent = points[index], latents[index]
            revived = jnp.where(mask & (point == 0), _REVIVED * latent, point)
            landed = jnp.where(mask, revived, 0)
            # A revived latent follows its parameter at the next step.
            points[index] = jnp.where(is_landing, landed, revived)
            latents[index] = jnp.where(is_landing, landed, latent)
        for index, target in points.items():
            moves[index] = update_to(target, leaves.leaves[index])
        # A check in a run's first steps may come before the first gradient.
        factor = _either(
            state.next_factor == 0,
            lambda: self._first_factor(leaves, grads),
            lambda: numbers.next_factor,
        )
        new = new._replace(
            latent=leaves.tree(latents),
            strength_factor=jnp.where(is_held, 0.0, state.next_factor),
        )
        numbers = numbers._replace(next_factor=factor)
        if is_known(jnp.array, is_landing):
            warn_if_missed(numbers.missed_units)
        return leaves.tree(moves), TargetSparsityState(new, *numbers)

    def _map(self, is_held: jax.Array | bool, factor: jax.Array) -> NormalMap:
        """The normal map, without the penalties that make zeros once these are held."""

        def is_free(penalty: Penalty) -> jax.Array | bool:
            return is_held if makes_zeros(penalty) else False

        def factor_of(penalty: Penalty, _: jax.Array) -> Number:
            return factor if makes_zeros(penalty) else 1.0

        inner = _with_zeros_held(self.inner, self.penalty, is_held)
        return NormalMap(inner, self.penalty, self.width, factor_of, is_free)

    def _first_factor(self, leaves: Leaves, grads: list[Any]) -> jax.Array:
        """The factor at which the penalty balances a share of the gradients."""
        balancing = []
        for part in counted_parts(leaves.parts, dict(enumerate(grads))):
            share = first_share(part.penalty)
            step = part.penalty.step_for(self.width)
            wide = [widened(grad) for grad in part.pick(grads)]
            sizes = zeroed_units(part.penalty).unit_sizes(wide)
            balancing += [share * size * step / self.width for size in sizes]
        return self.ramp.first_factor(balancing)

    def _check(
        self,
        leaves: Leaves,
        latents: list[Any],
        state: TargetSparsityState,
        count: jax.Array,
    ) -> tuple[list[jax.Array], _Numbers]:
        """Masks of the units that must not be zero, and the state's new numbers."""
        points = self._map(False, jnp.ones([])).prox(leaves, latents)
        of_points: list[jax.Array] = []
        of_latents: list[jax.Array] = []
        for part in counted_parts(leaves.parts, points):
            unit_sizes = zeroed_units(part.penalty).unit_sizes
            of_points += unit_sizes(part.pick(points))
            of_latents += unit_sizes(part.pick(latents))
        total = sum(sizes.size for sizes in of_points)
        if not total:
            none = [jnp.ones_like(sizes, bool) for sizes in of_points]
            return none, _Numbers(*state[1:])
        # From here on the program grows with the kinds of leaves, not with the leaves.
        kinds = kinds_of(of_points, of_latents)
        sizes = stacked(of_points, kinds)
        ranks = list(map(jax.vmap(ranks_of), sizes, stacked(of_latents, kinds)))
        alive = [jnp.sum(s != 0, per_array(s), dtype=jnp.int32) for s in sizes]
        alive_in_all = total_count(alive)
        zero = _share_of_rest(alive_in_all, total)
        factor = self.ramp.next_factor(state.next_factor, state.reached, zero, count)
        is_landing = count == self.ramp.end_step
        wanted = self.ramp.survivor_count(total)
        floors = [min(self.keep_at_least, math.prod(s.shape[1:])) for s in sizes]
        is_short = [jnp.any(a < floor) for a, floor in zip(alive, floors, strict=True)]
        is_short.append(alive_in_all < wanted)
        least = sum(f * len(rows) for f, rows in zip(floors, kinds, strict=True))
        masks = _either(
            is_landing | jnp.any(jnp.stack(is_short)),
            lambda: self._survivors(ranks, kinds, jnp.maximum(wanted, least)),
            lambda: [jnp.zeros_like(rank, bool) for rank in ranks],
        )
        pairs = zip(masks, ranks, strict=True)
        kept = total_count([mask & (rank > 0) for mask, rank in pairs])
        landed = _share_of_rest(kept, total)
        numbers = _Numbers(
            next_factor=factor,
            reached=jnp.where(is_landing, landed, zero),
            cut=jnp.where(is_landing, jnp.maximum(landed - zero, 0), state.cut),
            missed_units=jnp.where(is_landing, kept - wanted, state.missed_units),
        )
        return unstacked(masks, kinds), numbers

    def _survivors(
        self, ranks: list[jax.Array], kinds: list[list[int]], count: jax.Array
    ) -> list[jax.Array]:
        """Masks of the units of highest rank, the floor of each leaf among them."""
        floors = [largest_of_each(rank, self.keep_at_least) for rank in ranks]
        first = [
            jnp.where(floor & (rank > 0), jnp.inf, rank)
            for floor, rank in zip(floors, ranks, strict=True)
        ]
        return largest_of_stacks(first, kinds, count)


def _share_of_rest(count: jax.Array, total: int) -> jax.Array:
    return ((total - count) / total).astype(jnp.float32)


def warn_if_missed(missed_units: jax.Array) -> None:
    """Warns, of concrete numbers, that the landing missed the target."""
    if is_known(lambda missed: missed != 0, missed_units):
        warnings.warn(
            f"target_sparsity missed its target: {missed_units} units more than wanted "
            "are not zero. More than 0: keep_at_least keeps them; lower it, or the "
            "target. Less than 0: zero units had no latent to be revived from, as "
            "inputs that are always 0",
            stacklevel=3,
        )


def _either(
    is_so: jax.Array | bool, then: Callable[[], T], otherwise: Callable[[], T]
) -> T:
    """`jax.lax.cond` for rare events.

    The branches return masks and numbers, not leaves, which XLA for GPUs would copy.
    """
    if not isinstance(is_so, jax.core.Tracer):
        # Outside jit a cond would be compiled anew at every call.
        return then() if is_so else otherwise()
    return jax.lax.cond(is_so, then, otherwise)


def _unit_shapes(
    part: Part, points: dict[int, jax.Array]
) -> list[jax.ShapeDtypeStruct]:
    return jax.eval_shape(zeroed_units(part.penalty).unit_sizes, part.pick(points))


def _no_masks(leaves: Leaves, points: dict[int, jax.Array]) -> list[jax.Array]:
    return [
        jnp.zeros_like(units, bool)  # sharded as they are
        for part in counted_parts(leaves.parts, points)
        for units in _unit_shapes(part, points)
    ]


def _by_leaf(
    leaves: Leaves, points: dict[int, jax.Array], masks: list[jax.Array]
) -> dict[int, jax.Array]:
    """Broadcasts masks of units to their leaves; those of leaves not counted stay.

    Their zeros are held at the landing as they are.
    """
    remaining = iter(masks)
    out: dict[int, jax.Array] = {
        index: points[index] != 0
        for part in zeroing_parts(leaves.parts)
        for index in part.indices
    }
    for part in counted_parts(leaves.parts, points):
        units = [next(remaining) for _ in _unit_shapes(part, points)]
        shapes = [point.shape for point in part.pick(points)]
        leaf_masks = zeroed_units(part.penalty).spread(units, shapes)
        out.update(zip(part.indices, leaf_masks, strict=True))
    return out


def _with_zeros_held(
    optimizer: optax.GradientTransformationExtraArgs,
    penalty: Penalty,
    is_held: jax.Array | bool,
) -> optax.GradientTransformationExtraArgs:
    """Wraps the optimizer so that zero units of a latent stay zero if `is_held`."""

    def update(
        updates: Tree,
        state: optax.OptState,
        params: Tree | None = None,
        **extra_args: Any,
    ) -> tuple[Tree, optax.OptState]:
        latents = Leaves(penalty, params)
        held: dict[int, jax.Array] = {}
        for part in zeroing_parts(latents.parts):
            dead = zeroed_units(part.penalty).is_dead(part.pick(latents.leaves))
            held.update(zip(part.indices, dead, strict=True))

        def masked(tree: Tree) -> Tree:
            leaves = latents.like(tree, "updates", NEW_STATE)
            for index, is_dead in held.items():
                if leaves[index] is not None:
                    leaves[index] = jnp.where(is_held & is_dead, 0, leaves[index])
            return latents.tree(leaves)

        # A clip in the optimizer must not see gradients of entries that do not train.
        moves, state = optimizer.update(masked(updates), state, params, **extra_args)
        by_leaf = latents.like(moves, INNER_UPDATES, NEW_STATE)
        check_updates("target_sparsity", latents, by_leaf, INNER_UPDATES)
        return masked(moves), state

    return optax.GradientTransformationExtraArgs(optimizer.init, update)
