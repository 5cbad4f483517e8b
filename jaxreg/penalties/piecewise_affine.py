"""Piecewise linear penalties: pulls towards a grid of values."""

from __future__ import annotations

import functools
import itertools
import math
import numbers
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp

from jaxreg._core.leafwise import Leafwise
from jaxreg._core.messages import shown
from jaxreg._core.penalty import Facts, Number, is_untouched, ratio
from jaxreg._core.pytree import pytree_dataclass, static

_BISECTIONS = 40  # 24 for the digits of a float32, 16 for latents below the bracket.
_MOST_UNROLLED = 64  # Unrolled steps fuse; the bound limits the size of the program.

_Knot = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]
"""Minimiser of the current run, `f` there, best minimiser, `f` there, if it exists."""
_Sides = tuple[jax.Array, jax.Array, jax.Array]
"""`f`, and its slopes to the left and to the right."""


@pytree_dataclass
class PiecewiseAffine(Leafwise):
    r"""`strength * sum f(w)`, `f` continuous and piecewise linear, with minimum 0.

    `f` has the given slopes between the knots, and its lowest knot has value 0. Use it
    to quantize: the prox holds weights exactly at the knots where the slope rises.
    `to_grid` and `convex` construct the two usual kinds. The prox is the global
    minimiser at every step, also for one step per coordinate: the lowest of the
    stationary points of all pieces. Where the slope falls (as in `to_grid`, half way
    between values) it jumps: under `regularize` weights that it cannot return start at
    the nearest weight that it can, and the width is capped at half the shortest piece,
    so that most weights can stay. At a knot the subgradient is the one nearest to 0;
    zero is not special.
    bfloat16 leaves are computed in float32, and values round to bfloat16.

    Args:
      strength: >= 0, in units of loss per unit of weight at slope 1.
      knots: a tuple of increasing numbers, in units of a weight.
      slopes: a tuple with one more number than `knots`: left of the first knot, between
        the knots, right of the last; the first <= 0 and the last >= 0.

    Raises:
      ValueError: `knots` or `slopes` is not such a tuple.

    Reference: Bai, Wang and Liberty 2019, ProxQuant: quantized neural networks via
    proximal operators (`to_grid`); Jin et al. 2025, PARQ: piecewise-affine regularized
    quantization (the convex kind).

    >>> import jax.numpy as jnp, jaxreg
    >>> signs = jaxreg.PiecewiseAffine.to_grid(1.0, (-1.0, 1.0))
    >>> signs.prox(jnp.array([0.3, -0.9, 2.5]), step=0.5)
    Array([ 0.8, -1. ,  2. ], dtype=float32)
    """

    strength: Number
    knots: tuple[float, ...] = static()
    slopes: tuple[float, ...] = static()

    has_loop = True

    def __post_init__(self) -> None:
        knots, slopes = self.knots, self.slopes
        _rising("knots", knots)
        are_tuples = isinstance(knots, tuple) and isinstance(slopes, tuple)
        if not are_tuples or len(slopes) != len(knots) + 1:
            raise ValueError(
                f"PiecewiseAffine: knots are {shown(knots)} and slopes "
                f"{shown(slopes)}; allowed: two tuples, with one slope more than knots"
            )
        if not _are_finite(slopes) or slopes[0] > 0 or slopes[-1] < 0:
            raise ValueError(
                f"PiecewiseAffine: slopes are {shown(slopes)}; allowed: finite "
                "numbers, the first <= 0 and the last >= 0, so that the penalty has a "
                "lowest point"
            )

    @classmethod
    def to_grid(cls, strength: Number, grid: Sequence[float]) -> PiecewiseAffine:
        """`strength * sum min_q |w - q|`, the distance to the nearest grid value.

        Not convex. Its prox moves weights to their nearest value by `strength s`.
        """
        values = _rising("grid", grid)
        middles = [(low + high) / 2 for low, high in itertools.pairwise(values)]
        knots = sorted([*values, *middles])
        return cls(strength, tuple(knots), (-1.0, 1.0) * len(values))

    @classmethod
    def convex(cls, strength: Number, grid: Sequence[float]) -> PiecewiseAffine:
        """`strength w^2 / 2` at the grid values, up to a constant; linear between them.

        Its prox shrinks as that of `L2(strength / 2)` and holds weights at the grid
        values: at `strength s = 1` half of all latents. Beyond the grid the slope rises
        once more, by the last spacing.

        Raises:
          ValueError: the grid has fewer than two values, or lies on one side of 0.

        >>> import jax.numpy as jnp, jaxreg
        >>> held = jaxreg.PiecewiseAffine.convex(1.0, (-1.0, 0.0, 1.0))
        >>> held.prox(jnp.array([0.4, 0.75, 1.6, -2.75]), step=1.0)
        Array([ 0.  ,  0.25,  1.  , -1.25], dtype=float32)
        """
        values = _rising("grid", grid)
        if len(values) < 2 or values[0] > 0 or values[-1] < 0:
            raise ValueError(
                f"PiecewiseAffine.convex: grid is {values}; allowed: two or more "
                "values, the first <= 0 and the last >= 0"
            )
        first, last = 2 * values[0] - values[1], 2 * values[-1] - values[-2]
        wide = itertools.pairwise([first, *values, last])
        return cls(strength, values, tuple((low + high) / 2 for low, high in wide))

    @property
    def facts(self) -> Facts:
        pairs = itertools.pairwise(self.slopes)
        return Facts(
            is_convex=all(low <= high for low, high in pairs),
            is_separable=True,
            varying_step=True,
        )

    def step_for(self, width: Number) -> jax.Array:
        """The step at which the sharpest knot holds `width` on either side of it."""
        kinks = [high - low for low, high in itertools.pairwise(self.slopes)]
        if not self.facts.is_convex:
            gaps = [high - low for low, high in itertools.pairwise(self.knots)]
            width = jnp.minimum(width, max(kinks) / 2 * min(gaps) / -min(kinks))
        return ratio(width, self.strength * (max(kinks) / 2))

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        constant = jax.lax.stop_gradient(leaf)
        height, left, right = _surroundings(constant, self.knots, self.slopes)
        # Adds 0, whose derivative is the subgradient, at knots too.
        pull = _nearest_to_zero(left, right)
        return self.strength * (height + pull * (leaf - constant))

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        _, left, right = _surroundings(leaf, self.knots, self.slopes)
        return self.strength * _nearest_to_zero(left, right)

    def leaf_stationarity(self, leaf: jax.Array, grad: jax.Array) -> jax.Array:
        _, left, right = _surroundings(leaf, self.knots, self.slopes)
        fall = jnp.maximum(grad + self.strength * left, -grad - self.strength * right)
        return jnp.maximum(fall, 0.0)

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        threshold = (self.strength * step).astype(leaf.dtype)
        constants = jax.lax.stop_gradient((leaf, threshold))
        lowest = _lowest(*constants, self.knots, self.slopes)
        _, left, right = _surroundings(lowest, self.knots, self.slopes)
        moved = jnp.where(left == right, leaf - threshold * right, 0.0)
        return lowest + (moved - jax.lax.stop_gradient(moved))

    def leaf_start(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        return _start(self, leaf, step)

    @property
    def _has_own_latents(self) -> bool:
        return True

    def leaf_nearest(
        self, latent: jax.Array, leaf: jax.Array, step: jax.Array
    ) -> jax.Array:
        # At a knot where the slope rises, an interval of latents has the same prox.
        _, left, right = _surroundings(leaf, self.knots, self.slopes)
        threshold = self.strength * step
        lowest, highest = leaf + threshold * left, leaf + threshold * right
        start = self.leaf_start(leaf, step)
        # Inside the ends by some rounding, where the prox is the knot in every program.
        slack = 8 * jnp.finfo(leaf.dtype).eps * (jnp.abs(lowest) + jnp.abs(highest))
        at_knot = jnp.clip(latent, lowest + slack, highest - slack)
        nearest = jnp.where(left < right, at_knot, start)
        is_prox = is_untouched(self.leaf_prox(latent, step), leaf)
        is_kept = is_prox | is_untouched(latent, start)
        return jnp.where(is_kept, latent, nearest)


@jax.jit
def _start(penalty: PiecewiseAffine, leaf: jax.Array, step: jax.Array) -> jax.Array:
    """Finds the latent whose prox, which increases, is nearest to `leaf`."""
    threshold = jnp.asarray(penalty.strength * step, leaf.dtype)
    plain = leaf + step * penalty.leaf_subgradient(leaf)
    slack = 4 * jnp.finfo(leaf.dtype).eps * (jnp.abs(leaf) + jnp.abs(plain))
    is_solved = jnp.abs(penalty.leaf_prox(plain, step) - leaf) <= slack

    def bisect(
        _: int, bracket: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        low, high = bracket
        middle = low / 2 + high / 2
        is_low = penalty.leaf_prox(middle, step) <= leaf
        return jnp.where(is_low, middle, low), jnp.where(is_low, high, middle)

    ends = (
        leaf + threshold * min(penalty.slopes),
        leaf + threshold * max(penalty.slopes),
    )
    low, high = jax.lax.fori_loop(0, _BISECTIONS, bisect, ends)
    below, above = (abs(penalty.leaf_prox(end, step) - leaf) for end in (low, high))
    return jnp.where(is_solved, plain, jnp.where(below <= above, low, high))


@functools.partial(jax.jit, static_argnames=("knots", "slopes"))
def _lowest(
    leaf: jax.Array,
    threshold: jax.Array,
    knots: tuple[float, ...],
    slopes: tuple[float, ...],
) -> jax.Array:
    """The global minimiser of `threshold f(x) + (x - leaf)^2 / 2`.

    It passes the knots in order. `here` is the minimiser of the convex run of pieces up
    to the knot. The run ends where the slope falls: if `here` lies strictly inside the
    run, it is then compared with the best minimiser of earlier runs.
    """
    columns = zip(*_walk(knots, slopes), strict=True)
    table = tuple(jnp.asarray(column, leaf.dtype) for column in columns)

    def pass_knot(index: jax.Array, carry: _Knot) -> _Knot:
        here, height, best, best_height, has_best = carry
        knot, slope, knot_height, is_falling, start = (row[index] for row in table)
        is_inside = (here > start) & (here < knot)
        distance = jnp.where(has_best, here - best, 1.0)
        rise = threshold * (
            (height - best_height) / jnp.where(distance > 0, distance, 1)
        )
        is_lower = ~has_best | (rise + (here / 2 + best / 2 - leaf) < 0)
        is_new = (is_falling > 0) & is_inside & is_lower
        best = jnp.where(is_new, here, best)
        best_height = jnp.where(is_new, height, best_height)
        free = leaf - threshold * slope
        onward = jnp.where(is_falling > 0, free, jnp.maximum(free, knot))
        is_onward = (is_falling > 0) | (here > knot)
        # The last knot is at infinity, where the slope of 0 would make a NaN.
        past = jnp.where(knot < jnp.inf, onward - knot, 0.0)
        beyond = knot_height + slope * past
        here = jnp.where(is_onward, onward, here)
        height = jnp.where(is_onward, beyond, height)
        return here, height, best, best_height, has_best | is_new

    here = leaf - threshold * slopes[0]
    height = table[2][0] + slopes[0] * (here - knots[0])
    carry = (here, height, leaf, jnp.zeros_like(leaf), jnp.zeros_like(leaf, bool))
    count = len(knots) + 1
    unroll = min(count, _MOST_UNROLLED)
    return jax.lax.fori_loop(0, count, pass_knot, carry, unroll=unroll)[2]


@functools.partial(jax.jit, static_argnames=("knots", "slopes"))
def _surroundings(
    leaf: jax.Array, knots: tuple[float, ...], slopes: tuple[float, ...]
) -> _Sides:
    """`f` at the leaf, and its slopes to the left and to the right."""
    rows = (knots, slopes[1:], _heights(knots, slopes))
    table = tuple(jnp.asarray(row, leaf.dtype) for row in rows)

    def pass_knot(index: jax.Array, carry: _Sides) -> _Sides:
        height, left, right = carry
        knot, slope, knot_height = (row[index] for row in table)
        is_past = leaf >= knot
        height = jnp.where(is_past, knot_height + slope * (leaf - knot), height)
        left = jnp.where(leaf > knot, slope, left)
        return height, left, jnp.where(is_past, slope, right)

    first = jnp.full_like(leaf, slopes[0])
    start = (table[2][0] + first * (leaf - table[0][0]), first, first)
    unroll = min(len(knots), _MOST_UNROLLED)
    return jax.lax.fori_loop(0, len(knots), pass_knot, start, unroll=unroll)


def _nearest_to_zero(left: jax.Array, right: jax.Array) -> jax.Array:
    """The subgradient nearest to 0; where the slope falls, that of steeper descent."""
    down_left, down_right = jnp.maximum(left, 0.0), jnp.maximum(-right, 0.0)
    return jnp.where(down_left >= down_right, down_left, -down_right)


def _heights(knots: tuple[float, ...], slopes: tuple[float, ...]) -> list[float]:
    """`f` at the knots."""
    gaps = [high - low for low, high in itertools.pairwise(knots)]
    rises = [slope * gap for slope, gap in zip(slopes[1:], gaps, strict=False)]
    heights = list(itertools.accumulate(rises, initial=0.0))
    # Middles of grid values are rounded, so that equal minima differ by that much.
    rounding = 1e-14 * (max(heights) - min(heights))
    above = [height - min(heights) for height in heights]
    return [height if height > rounding else 0.0 for height in above]


def _walk(
    knots: tuple[float, ...], slopes: tuple[float, ...]
) -> list[tuple[float, ...]]:
    """Per knot: itself, slope beyond, `f`, True if the slope falls, last such knot."""
    falls = [low > high for low, high in itertools.pairwise(slopes)]
    heights, rows, last = _heights(knots, slopes), [], -math.inf
    for row in zip(knots, slopes[1:], heights, falls, strict=True):
        rows.append((*row, last))
        last = row[0] if row[-1] else last
    # A last knot, at infinity, ends the last run.
    return [*rows, (math.inf, 0.0, 0.0, True, last)]


def _rising(name: str, sequence: Sequence[float]) -> tuple[float, ...]:
    if isinstance(sequence, jax.Array):
        raise TypeError(
            f"PiecewiseAffine: {name} is an array of JAX; allowed: numbers, as "
            f"tuple({name}.tolist()), since they are part of the program that jax "
            "compiles"
        )
    values = tuple(sequence) if isinstance(sequence, Iterable) else ()
    is_real = bool(values) and _are_finite(values)
    if not is_real or any(low >= high for low, high in itertools.pairwise(values)):
        raise ValueError(
            f"PiecewiseAffine: {name} is {shown(sequence)}; allowed: rising numbers, "
            "at least one"
        )
    return tuple(map(float, values))


def _are_finite(values: tuple[float, ...]) -> bool:
    return all(isinstance(x, numbers.Real) and math.isfinite(x) for x in values)
