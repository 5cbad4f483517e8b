"""What `target_sparsity` counts, and how it steers: a ramp and a controller."""

from __future__ import annotations

import dataclasses
import numbers
from typing import Any

import jax
import jax.numpy as jnp

from jaxreg._core.checks import check_countable, check_number, check_positive, is_known
from jaxreg._core.penalty import Number, Penalty
from jaxreg._core.shards import check_whole_leaf
from jaxreg.rules.by_path import Part
from jaxreg.transforms._leaves import zeroed_units

_LOOKS, _AHEAD, _MARGIN, _GAIN = 100, 10, 0.15, 0.1


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
    """Whether its prox zeroes entries or units, as far as its numbers are known."""
    return penalty.facts.zeros is not None


def zeroing(parts: list[Part]) -> list[Part]:
    """The rules that make zeros: the controller scales and the landing holds them."""
    return [part for part in parts if makes_zeros(part.penalty)]


def counted(parts: list[Part], points: Any) -> list[Part]:
    """The rules whose units count: those with units of several entries, else all that

    make zeros.
    """
    counts = []
    for part in zeroing(parts):
        own = part.pick(points)
        for point in own:
            check_whole_leaf("target_sparsity", point, "zeros are counted in all parts")
        sizes = jax.eval_shape(zeroed_units(part.penalty).unit_sizes, own)
        units = sum(size.size for size in sizes)
        counts.append((part, units, sum(point.size for point in own)))
    grouped = [(part, units) for part, units, entries in counts if units < entries]
    chosen = grouped or [(part, units) for part, units, _ in counts]
    check_countable("target_sparsity", sum(units for _, units in chosen))
    return [part for part, _ in chosen]


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
