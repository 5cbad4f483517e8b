"""What `target_sparsity` counts, and how it steers: a ramp and a controller."""

from __future__ import annotations

import dataclasses
import numbers
from typing import Any

import jax
import jax.numpy as jnp

from jaxreg._core.checks import check_countable, check_number, check_positive, is_known
from jaxreg._core.in_groups import WholeGroups
from jaxreg._core.leafwise import Elementwise
from jaxreg._core.penalty import Number, Penalty
from jaxreg._core.shards import refuse_part
from jaxreg.calculus.grouped import GroupPenalty
from jaxreg.calculus.nonnegative import MagnitudePenalty
from jaxreg.calculus.scaled import Scaled
from jaxreg.calculus.weighted import Weighted
from jaxreg.penalties.fused_lasso import FusedLasso
from jaxreg.penalties.slope import SLOPE
from jaxreg.rules import by_path as rules

_LOOKS, _AHEAD, _MARGIN, _GAIN = 100, 10, 0.15, 0.1

# What these zero are single entries or whole groups, so that either can be counted.
_ZEROING = (Elementwise, WholeGroups, MagnitudePenalty, SLOPE, FusedLasso)


@dataclasses.dataclass(frozen=True)
class Ramp:
    """When the zeros are to come, and how the factor answers to their share."""

    target: Number
    begin_step: int
    end_step: int
    factor_range: tuple[float, float]

    def check(self) -> None:
        check_number("target_sparsity: target", self.target)
        if is_known(lambda share: share >= 1, self.target):
            raise ValueError(
                f"target_sparsity: target is {self.target}; allowed: the fraction of "
                "zeros, from 0 to below 1"
            )
        for name, least in (("end_step", 1), ("begin_step", 0)):
            steps = getattr(self, name)
            if not isinstance(steps, numbers.Integral) or steps < least:
                raise ValueError(
                    f"target_sparsity: {name} is {steps!r}; allowed: a number of "
                    f"updates, an int >= {least}, as int(0.8 * steps). Under "
                    "optax.inject_hyperparams name it in static_args"
                )
        if self.begin_step >= self.end_step:
            raise ValueError(
                f"target_sparsity: begin_step is {self.begin_step} and end_step "
                f"{self.end_step}; allowed: a begin before the end"
            )
        ends = self.factor_range
        is_pair = isinstance(ends, tuple | list) and len(ends) == 2
        for end in ends if is_pair else ():
            check_positive("target_sparsity: an end of factor_range", end)
        if not is_pair or not ends[0] <= 1 <= ends[1]:
            raise ValueError(
                f"target_sparsity: factor_range is {ends!r}; allowed: two numbers "
                "around 1, where the factor starts"
            )

    def looks(self, count: jax.Array) -> jax.Array:
        """Whether the zeros are counted after this many updates."""
        since = count - self.begin_step
        is_due = (since > 0) & (since % self._interval == 0) & (count < self.end_step)
        return is_due | (count == self.end_step)

    def answer(
        self, factor: jax.Array, before: jax.Array, zero: jax.Array, count: jax.Array
    ) -> jax.Array:
        """The factor after a look at the share of zero units, once `before`."""
        then = count + _AHEAD * self._interval - self.begin_step
        progress = jnp.clip(then / (self.end_step - self.begin_step), 0.0, 1.0)
        wanted = 1 - self.target * (1 - (1 - progress) ** 3)
        wanted = jnp.minimum(wanted * (1 + _MARGIN), 1.0)
        # What dies is slow to answer: without looking ahead the factor runs too far.
        alive = jnp.log(1 - zero)
        ahead = alive + _AHEAD * (alive - jnp.log(1 - before))
        excess = jnp.nan_to_num(ahead, nan=-jnp.inf) - jnp.log(wanted)
        moved = factor * jnp.exp(_GAIN * jnp.clip(excess, -1.0, 1.0))
        return jnp.clip(moved, *self.factor_range).astype(jnp.float32)

    def kept(self, total: int) -> jax.Array:
        """How many of all units are to stay."""
        if isinstance(self.target, jax.core.Tracer):
            share = 1 - jnp.asarray(self.target, jnp.float32)
            return jnp.round(share * total).astype(jnp.int32)
        # Float32 would miss some of ten million.
        return jnp.asarray(total - round(float(self.target) * total), jnp.int32)

    @property
    def _interval(self) -> int:
        return max((self.end_step - self.begin_step) // _LOOKS, 1)


def makes_zeros(penalty: Penalty) -> bool:
    """Whether its prox zeroes entries or groups, as far as its numbers are known."""
    while isinstance(penalty, Weighted | Scaled):
        penalty = penalty.penalty
    scalar = penalty.magnitude if isinstance(penalty, GroupPenalty) else penalty
    is_smooth = isinstance(scalar, Elementwise) and is_known(
        lambda slope: slope <= 0, scalar.slope_at_zero
    )
    return isinstance(penalty, _ZEROING) and not is_smooth


def zeroing(parts: list[rules.Part]) -> list[rules.Part]:
    """The rules that make zeros: those are steered and held."""
    return [part for part in parts if makes_zeros(part.penalty)]


def counted(parts: list[rules.Part], points: Any) -> list[tuple[Penalty, int]]:
    """The leaves whose units count: of rules with groups, else of all that make zeros.

    Each by its penalty and place.
    """

    def units_of(part: rules.Part) -> int:
        units = [jax.eval_shape(part.penalty.unit_sizes, x) for x in part.of(points)]
        return sum(x.size for x in units)

    for place in (place for part in parts for place in part.places):
        refuse_part("target_sparsity", points[place], "zeros are counted in all parts")
    some = [(part, units_of(part)) for part in zeroing(parts)]
    groups = [(p, n) for p, n in some if n < sum(x.size for x in p.of(points))]
    chosen = groups or some
    check_countable("target_sparsity", sum(units for _, units in chosen))
    return [(part.penalty, place) for part, _ in chosen for place in part.places]


def zero_share(sizes: list[jax.Array]) -> jax.Array:
    """The share of zeros among units of these sizes."""
    zeros = sum((jnp.sum(size == 0) for size in sizes), start=jnp.zeros((), jnp.int32))
    total = sum(size.size for size in sizes)
    return (zeros / max(total, 1)).astype(jnp.float32)


def relative(sizes: jax.Array) -> jax.Array:
    """Sizes in units of the root mean square of those in the leaf that are not zero.

    Layers differ in scale: by plain sizes a landing can empty the finest of them.
    """
    alive = jnp.maximum(jnp.sum(sizes > 0), 1)
    scale = jnp.sqrt(jnp.sum(sizes**2) / alive)
    return sizes / jnp.where(scale > 0, scale, 1.0)
