"""The prox of total variation along lines, exact and in linear time."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from jaxreg._numerics.isotonic import segment_sums
from jaxreg._numerics.taut_hulls import hull_segments

# The largest weight, that of an entry with step 0, where entries and the tube have size
# 1: the tube moves it by 1e-30, and 3e8 of them have a finite sum in float32.
_FIXED = 1e30
# Visits per entry after which the hulls take over. Condat's scan visits an entry twice
# in noise, and on smooth lines as often as the tube is long. The hulls visit each three
# times, at 300 times the cost: XLA compiles his small loop into one kernel, and theirs
# into a hundred.
_VISITS = 256

_Entries = tuple[jax.Array, jax.Array, jax.Array]
"""Values, weights and bounds of all entries, line after line."""
_Entry = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]
"""Value, weight, bound, True if a segment starts at the entry, and the edge there."""
_Side = tuple[jax.Array, jax.Array, jax.Array]
"""Slope along one edge, height of the line of that slope, last entry touched."""
_Scan = tuple[
    jax.Array, jax.Array, jax.Array, jax.Array, _Side, _Side, jax.Array, jax.Array
]
"""The entry, the begin of its segment and the edge there, the weight of the segment so
far, the lower and the upper side, and level and pull of each segment."""


def total_variation_prox(
    lines: jax.Array, threshold: jax.Array
) -> tuple[jax.Array, jax.Array]:
    r"""`argmin_x sum |x_{i+1} - x_i| + sum (x_i - v_i)^2 / (2 t_i)` for each row.

    Also returns the index, among all entries, at which the segment of each begins. On
    a segment of the solution, with `w = 1 / t`,

        `x = (sum w v + d) / sum w`,  `d` = +2 in a valley, -2 on a hill, 0 on a slope

    (+1, -1 at an end of the line towards which it rises or falls). The loop finds the
    segments and is not differentiated; this formula is, and its derivative averages
    the tangents of a segment with its weights.
    """
    threshold = jnp.broadcast_to(threshold, lines.shape).astype(lines.dtype)
    moves = threshold > 0
    scale = _power_of_two(jnp.max(jnp.abs(lines), axis=-1, keepdims=True))
    values, weights = lines / scale, _weights(threshold, moves, scale)
    ends = jnp.arange(lines.shape[-1]) == lines.shape[-1] - 1
    bounds = jnp.broadcast_to(1.0 - ends.astype(lines.dtype), lines.shape)
    flat = [array.reshape(-1) for array in (values, weights, bounds)]
    length = lines.shape[-1]
    level, pull, begins = _segments(*jax.lax.stop_gradient(flat), length=length)
    total = segment_sums(flat[1], begins)
    excess = segment_sums(flat[1] * (flat[0] - level[begins]), begins) + pull
    refined = level + excess / jnp.where(total > 0, total, 1.0)
    out = _within(refined[begins].reshape(lines.shape), values) * scale
    return jnp.where(moves, out, lines), begins


def _weights(threshold: jax.Array, moves: jax.Array, scale: jax.Array) -> jax.Array:
    """`scale / threshold`, or larger by a factor where the line becomes flat anyway.

    With weights of sum 1/2 the cumulative sums of a line of entries up to 1 stay in the
    tube. Smaller weights have the same solution, but lose its digits to large slopes.
    """
    positive = jnp.where(moves, threshold, jnp.inf)
    least = jax.lax.stop_gradient(jnp.min(positive, axis=-1, keepdims=True))
    least = jnp.where(jnp.isfinite(least), least, 1.0)
    share = jnp.where(moves, least / jnp.where(moves, threshold, 1.0), 0.0)
    whole = jnp.sum(jax.lax.stop_gradient(share), axis=-1, keepdims=True)
    unit = jnp.maximum(scale / least, 0.5 / jnp.maximum(whole, 1.0))
    return jnp.where(moves, share * jnp.minimum(unit, _FIXED), _FIXED)


def _within(out: jax.Array, values: jax.Array) -> jax.Array:
    """Clips rows to the range of `values`, which rounding may leave; no derivative."""
    bounds = [f(values, axis=-1, keepdims=True) for f in (jnp.min, jnp.max)]
    return out + jax.lax.stop_gradient(jnp.clip(out, *bounds) - out)


def _power_of_two(size: jax.Array) -> jax.Array:
    """A power of two near a size, by which division is exact; 1 for 0."""
    size = jax.lax.stop_gradient(size)
    _, exponent = jnp.frexp(jnp.where(size > 0, size, 1.0))
    return jnp.ldexp(jnp.ones_like(size), exponent - 1)


def _find_segments(
    values: jax.Array, weights: jax.Array, bounds: jax.Array, length: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Finds the segments of the taut string by Condat's scan.

    Returns the level of each segment and its `d` at the index where it begins, and for
    each entry that index. The string follows the cumulative sums of `weights * values`
    within `bounds`: 1, and 0 where a line ends. `below` is the steepest slope that
    stays above the lower edge since the last bend, the height of the line of this slope
    in the tube, and the last entry at which it touched the edge. `above` is the same
    for the flattest slope and the upper edge. When such a line leaves the tube on the
    other side, the string bends where it last touched, and the scan goes back to there.
    If it has gone back too often, which it cannot on lines of a small `length`, the
    hulls do the rest.

    Reference: Condat 2013, A direct algorithm for 1D total variation denoising.
    """
    n, dtype = values.shape[0], values.dtype
    zero, start = jnp.zeros((), dtype), jnp.zeros((), jnp.int32)

    advance = functools.partial(_advance, (values, weights, bounds))
    side = (zero, zero, start)
    unset = jnp.full(n, jnp.inf, dtype)
    carry = (start, start, zero, zero, side, side, unset, jnp.zeros(n, dtype))

    is_short, most = length <= _VISITS, min(_VISITS * n, jnp.iinfo(jnp.int32).max)
    _, carry = jax.lax.while_loop(
        lambda carry: (carry[1][0] < n) & (is_short | (carry[0] < most)),
        lambda carry: (carry[0] + 1, advance(carry[1])),
        (start, carry),
    )
    here, begin, bend, *_, level, pull = carry
    if not is_short:
        level, pull = jax.lax.cond(
            here < n,
            lambda done: hull_segments((values, weights, bounds), begin, bend, done),
            lambda done: done,
            (level, pull),
        )
    is_begin = jnp.isfinite(level)

    def fill(
        index: jax.Array, carry: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        begin, begins = carry
        begin = jnp.where(is_begin[index], index, begin).astype(jnp.int32)
        return begin, begins.at[index].set(begin)

    begins = jax.lax.fori_loop(0, n, fill, (start, jnp.zeros(n, jnp.int32)))[1]
    return jnp.where(is_begin, level, 0), jnp.where(is_begin, pull, 0), begins


@functools.partial(jax.jit, static_argnames="length")
def _segments(*entries: jax.Array, length: int) -> tuple[jax.Array, ...]:
    find = functools.partial(_find_segments, length=length)
    return jax.custom_batching.sequential_vmap(find)(*entries)


def _advance(entries: _Entries, carry: _Scan) -> _Scan:
    """One step of the scan: reads an entry or closes a segment."""
    values, weights, bounds = entries
    here, begin, bend, mass, below, above, level, pull = carry
    v, w, bound = values[here], weights[here], bounds[here]
    is_new = here == begin
    mass = jnp.where(is_new, w, mass + w)
    below = _follow(below, (v, w, bound, is_new, bend), -1.0)
    above = _follow(above, (v, w, bound, is_new, bend), 1.0)
    falls, climbs = below[1] > bound, above[1] < -bound
    flat_end = below[0] - below[1] / mass
    segment_level = jnp.where(falls, below[0], jnp.where(climbs, above[0], flat_end))
    edge = jnp.where(falls, -1.0, jnp.where(climbs, 1.0, 0.0)).astype(v.dtype)
    touched = jnp.where(falls, below[2], jnp.where(climbs, above[2], here))
    bends = falls | climbs
    closes = bends | (bound == 0)
    return (
        jnp.where(bends, touched, here) + 1,
        jnp.where(closes, touched + 1, begin),
        jnp.where(closes, edge, bend),
        mass,
        _tighten(below, bound, mass, here, -1.0),
        _tighten(above, bound, mass, here, 1.0),
        level.at[begin].set(segment_level),
        pull.at[begin].set(edge - bend),
    )


def _follow(side: _Side, entry: _Entry, edge: float) -> _Side:
    """Extends the line along one edge of the tube over an entry."""
    slope, height, touched = side
    v, w, bound, is_new, bend = entry
    return (
        jnp.where(is_new, v + (edge * bound - bend) / w, slope),
        jnp.where(is_new, edge * bound, height + w * (slope - v)),
        touched,
    )


def _tighten(
    side: _Side, bound: jax.Array, mass: jax.Array, here: jax.Array, edge: float
) -> _Side:
    """Turns a line that would cross its edge here, so that it touches it instead."""
    slope, height, touched = side
    meets = edge * height >= bound
    return (
        jnp.where(meets, slope + (edge * bound - height) / mass, slope),
        jnp.where(meets, edge * bound, height),
        jnp.where(meets, here, touched),
    )
