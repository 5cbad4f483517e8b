"""The taut string in linear time, for lines on which Condat's scan goes back too often.

The string runs through the tube between `cumsum(weights * values) - bounds` and
`+ bounds`, over `cumsum(weights)`. We keep the hull of either edge since the last bend:
the least concave majorant of the lower edge and the greatest convex minorant of the
upper one. While the first chord of the majorant is no steeper than that of the
minorant, the string can be straight. Once it is steeper, the string bends where the
first chord of one hull ends, and the other hull is a single chord from there on. Every
entry joins each hull once and leaves it once.

Reference: Davies and Kovac 2001, Local extremes, runs, strings and multiresolution.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class _Chord(NamedTuple):
    """A piece of a hull, over entries of a total `weight`.

    Its slope is `slope + residual`, in two floats: beside heavy entries a rounded slope
    would not determine where in the tube the chord ends.
    """

    weight: jax.Array
    slope: jax.Array
    residual: jax.Array


class _State(NamedTuple):
    """The hulls between the last bend, at `begin`, and `here`.

    One array holds the chords of both, in order of their slopes: those of the majorant
    from `left` to `middle`, the last one first, and those of the minorant up to
    `right`, the first one first. `low` and `high`, the chords that end here, are not
    in it yet. `after_pivot` is the chord over the entries after `pivot`; an array holds
    the chords from each earlier entry to the pivot. To move the pivot to `here`, the
    scan goes back from there: `to_here` is the chord over the entries from `back` on.
    """

    here: jax.Array
    begin: jax.Array
    bend: jax.Array
    low: _Chord
    high: _Chord
    left: jax.Array
    middle: jax.Array
    right: jax.Array
    pivot: jax.Array
    after_pivot: _Chord
    back: jax.Array
    to_here: _Chord


class _Arrays(NamedTuple):
    """The chords of the hulls, where they end, and the chords up to the pivot."""

    chords: jax.Array
    ends: jax.Array
    to_pivot: jax.Array


_Entries = tuple[jax.Array, jax.Array, jax.Array]
"""Values, weights and bounds of all entries, line after line."""
_Outcome = tuple[jax.Array, jax.Array, jax.Array]
"""True if nothing can be done now; true if that is for lack of sums to the pivot; the
start of the next segment."""


def hull_segments(
    entries: _Entries,
    begin: jax.Array,
    bend: jax.Array,
    segments: tuple[jax.Array, jax.Array],
) -> tuple[jax.Array, jax.Array]:
    """Completes `segments`: level and pull of each segment, at its first entry.

    The segment at `begin` starts on the edge `bend` of the tube, -1 or 1, or at the
    start of a line, 0. The inner loop reads the arrays that the outer one writes, and
    both only write the segments, so that XLA copies no array.
    """
    n, dtype = entries[0].shape[0], entries[0].dtype

    def advance(
        carry: tuple[_State, _Arrays, jax.Array],
    ) -> tuple[_State, _Arrays, jax.Array]:
        state, arrays, rows = carry
        no = jnp.zeros((), bool)
        state, rows, (_, is_late, start) = jax.lax.while_loop(
            lambda inner: ~inner[2][0],
            lambda inner: _settle(entries, arrays, inner[0], inner[1]),
            (state, rows, (no, no, state.here)),
        )
        level = _either(state.left == state.middle, state.low, state.high).slope
        rows = rows.at[state.begin].set(jnp.stack([level, -state.bend]))
        return (*_advance(entries, arrays, state, is_late, start), rows)

    arrays = _Arrays(
        jnp.zeros((2 * n + 1, 3), dtype),
        jnp.zeros(2 * n + 1, jnp.int32),
        jnp.zeros((n, 3), dtype),
    )
    carry = (_start(entries, begin, bend), arrays, jnp.stack(segments, axis=1))
    rows = jax.lax.while_loop(lambda carry: carry[0].here < n, advance, carry)[2]
    return rows[:, 0], rows[:, 1]


def _start(entries: _Entries, begin: jax.Array, bend: jax.Array) -> _State:
    low, high = _ends_here(entries, begin, -bend, -bend)
    middle = jnp.asarray(entries[0].shape[0], jnp.int32)
    single = _single(entries, begin)
    return _State(
        here=begin,
        begin=begin,
        bend=bend,
        low=low,
        high=high,
        left=middle,
        middle=middle,
        right=middle - 1,
        pivot=begin - 1,
        after_pivot=single,
        back=begin,
        to_here=jax.tree.map(jnp.zeros_like, single),
    )


def _settle(
    entries: _Entries, arrays: _Arrays, state: _State, rows: jax.Array
) -> tuple[_State, jax.Array, _Outcome]:
    """Joins the last chords that are out of order, or bends the string once."""
    first, last = (_Chord(*arrays.chords[i]) for i in (state.left, state.right))
    has_chord = state.left <= state.right
    falls = has_chord & (_rise(first, state.low) > 0)
    climbs = has_chord & (_rise(state.high, last) > 0)
    climbs &= ~falls | (state.left < state.right)
    # A chord that passes all of its own hull meets the first one of the other hull.
    is_hill = falls & (state.left == state.middle)
    is_valley = climbs & (state.right < state.middle)
    start = arrays.ends[jnp.where(is_hill, state.left, state.right)] + 1
    is_late = (is_hill | is_valley) & (start > state.pivot + 1)
    done = is_late | ~(falls | climbs)
    falls, climbs, is_hill, is_valley = (
        flag & ~done for flag in (falls, climbs, is_hill, is_valley)
    )
    edge = jnp.where(is_hill, 1, -1).astype(state.bend.dtype)
    chord = _Chord(*jnp.where(start > state.pivot, 0, arrays.to_pivot[start]))
    chord = _joined(chord, state.after_pivot)
    chord = _tilted(chord, -edge * (entries[2][state.here] + 1))
    low = _either(falls, _joined(state.low, first), state.low)
    high = _either(climbs, _joined(state.high, last), state.high)
    bends = is_hill | is_valley
    row = jnp.stack([_either(is_hill, first, last).slope, edge - state.bend])
    settled = state._replace(
        begin=jnp.where(bends, start, state.begin),
        bend=jnp.where(bends, edge, state.bend),
        low=_either(is_hill, chord, low),
        high=_either(is_valley, chord, high),
        left=state.left + falls,
        middle=state.middle + is_hill - is_valley,
        right=state.right - climbs,
    )
    return settled, rows.at[state.begin].set(row), (done, is_late, start)


def _advance(
    entries: _Entries,
    arrays: _Arrays,
    state: _State,
    is_late: jax.Array,
    start: jax.Array,
) -> tuple[_State, _Arrays]:
    """Reads the next entry, or adds one of the missing sums to the pivot."""
    n, after = entries[0].shape[0], state.here + 1
    bound = entries[2][state.here]
    closes = ~is_late & (bound == 0)
    empty = jax.tree.map(jnp.zeros_like, state.to_here)
    index = jnp.where(is_late, state.back, after)
    so_far = _either(closes, empty, state.after_pivot)
    so_far = _either(is_late, state.to_here, so_far)
    summed = _joined(_single(entries, index), so_far)
    is_summed = is_late & (state.back == start)
    low, high = _ends_here(entries, after, bound, -bound)
    sides = (state.left - 1, state.right + 1)
    return _State(
        here=jnp.where(is_late, state.here, after),
        begin=jnp.where(closes, after, state.begin),
        bend=jnp.where(closes, 0, state.bend),
        low=_either(is_late, state.low, low),
        high=_either(is_late, state.high, high),
        left=jnp.where(closes, n, jnp.where(is_late, state.left, sides[0])),
        middle=jnp.where(closes, n, state.middle),
        right=jnp.where(closes, n - 1, jnp.where(is_late, state.right, sides[1])),
        pivot=jnp.where(is_summed | closes, state.here, state.pivot),
        after_pivot=_either(
            is_summed, empty, _either(is_late, state.after_pivot, summed)
        ),
        back=jnp.where(is_late, state.back - 1, after),
        to_here=_either(is_late, summed, empty),
    ), _Arrays(
        chords=arrays.chords.at[jnp.stack(sides)].set(
            jnp.stack([jnp.stack(state.low), jnp.stack(state.high)])
        ),
        ends=arrays.ends.at[jnp.stack(sides)].set(state.here),
        to_pivot=arrays.to_pivot.at[index].set(jnp.stack(summed)),
    )


def _single(entries: _Entries, index: jax.Array) -> _Chord:
    values, weights, _ = entries
    return _Chord(weights[index], values[index], jnp.zeros_like(values[index]))


def _ends_here(
    entries: _Entries, index: jax.Array, low: jax.Array, high: jax.Array
) -> tuple[_Chord, _Chord]:
    """The chords to both edges at one entry, from `-low` and `-high` before it."""
    single, bound = _single(entries, index), entries[2][index]
    return _tilted(single, low - bound), _tilted(single, high + bound)


def _joined(first: _Chord, second: _Chord) -> _Chord:
    """The chord over the entries of both; its slope is their weighted mean."""
    is_heavier = first.weight >= second.weight
    heavy = _either(is_heavier, first, second)
    light = _either(is_heavier, second, first)
    weight = heavy.weight + light.weight
    share = light.weight / jnp.where(weight > 0, weight, 1)
    return _two_sum(weight, heavy.slope, heavy.residual + share * _rise(heavy, light))


def _tilted(chord: _Chord, rise: jax.Array) -> _Chord:
    """The chord whose end is higher by `rise`."""
    return _two_sum(chord.weight, chord.slope, chord.residual + rise / chord.weight)


def _two_sum(weight: jax.Array, slope: jax.Array, residual: jax.Array) -> _Chord:
    """A chord with the rounded sum as its slope, and what rounding lost as residual."""
    rounded = slope + residual
    return _Chord(weight, rounded, (slope - rounded) + residual)


def _rise(first: _Chord, second: _Chord) -> jax.Array:
    """The slope of the second chord minus that of the first."""
    return (second.slope - first.slope) + (second.residual - first.residual)


def _either(is_first: jax.Array, first: _Chord, second: _Chord) -> _Chord:
    return jax.tree.map(lambda a, b: jnp.where(is_first, a, b), first, second)
