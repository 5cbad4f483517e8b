"""The taut string in linear time, for lines on which Condat's scan goes back too often.

The string runs through the tube between `cumsum(weights * values) - bounds` and
`+ bounds`, over `cumsum(weights)`. Of either edge the hull since the last bend is kept:
the least concave majorant of the lower one, the greatest convex minorant of the upper
one. While the first chord of the majorant is no steeper than that of the minorant, the
string can be straight. Once it is, the string bends where the first chord of one hull
ends, and the other hull is a single chord from there on. Every entry joins each hull
once and leaves it once.

Reference: Davies and Kovac 2001, Local extremes, runs, strings and multiresolution.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class _Chord(NamedTuple):
    """A piece of a hull, over entries of a total `weight`.

    Its slope is `slope + rest`: next to heavy entries a rounded slope would no longer
    tell where in the tube the chord ends.
    """

    weight: Any
    slope: Any
    rest: Any


class _State(NamedTuple):
    """The hulls between the last bend, at `begin`, and `here`.

    The chords of both lie in one array, the steeper the further right: from `left` to
    `middle` those of the majorant, the last one first, and up to `right` those of the
    minorant, the first one first. `low` and `high`, the chords that end here, are not
    among them yet. `since` is the chord over the entries after `pivot`; an array has
    that from each earlier one to `pivot`. To move the pivot here, `tail` collects the
    chords over the entries from `back` on.
    """

    here: Any
    begin: Any
    bend: Any
    low: _Chord
    high: _Chord
    left: Any
    middle: Any
    right: Any
    pivot: Any
    since: _Chord
    back: Any
    tail: _Chord


class _Arrays(NamedTuple):
    """The chords of the hulls, where they end, and the chords up to the pivot."""

    chords: Any
    ends: Any
    to_pivot: Any


def hull_segments(entries: Any, begin: Any, bend: Any, found: Any) -> Any:
    """Completes `found`, the level and the pull of each segment where it begins.

    `entries` are the values, weights and bounds. The segment at `begin` starts on the
    edge `bend` of the tube, -1 or 1, or with a line, 0. What a loop reads the other one
    writes, and `found` is only written, so that XLA copies no array.
    """
    n, dtype = entries[0].shape[0], entries[0].dtype

    def advance(carry: Any) -> Any:
        state, arrays, found = carry
        no = jnp.zeros((), bool)
        state, found, (_, is_late, start) = jax.lax.while_loop(
            lambda inner: ~inner[2][0],
            lambda inner: _settle(entries, arrays, inner[0], inner[1]),
            (state, found, (no, no, state.here)),
        )
        level = _either(state.left == state.middle, state.low, state.high).slope
        found = found.at[state.begin].set(jnp.stack([level, -state.bend]))
        return (*_advance(entries, arrays, state, is_late, start), found)

    arrays = _Arrays(
        jnp.zeros((2 * n + 1, 3), dtype),
        jnp.zeros(2 * n + 1, jnp.int32),
        jnp.zeros((n, 3), dtype),
    )
    carry = (_opened(entries, begin, bend), arrays, jnp.stack(found, axis=1))
    rows = jax.lax.while_loop(lambda carry: carry[0].here < n, advance, carry)[2]
    return rows[:, 0], rows[:, 1]


def _opened(entries: Any, begin: Any, bend: Any) -> _State:
    low, high = _ends_here(entries, begin, -bend, -bend)
    middle = jnp.asarray(entries[0].shape[0], jnp.int32)
    alone = _alone(entries, begin)
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
        since=alone,
        back=begin,
        tail=jax.tree.map(jnp.zeros_like, alone),
    )


def _settle(entries: Any, arrays: _Arrays, state: _State, found: Any) -> Any:
    """Joins the last chords that are out of order, or bends the string once.

    Also returns whether nothing is left to do, whether that is because the chord since
    the bend must first be summed, and where the next segment starts.
    """
    first, last = (_Chord(*arrays.chords[i]) for i in (state.left, state.right))
    is_any = state.left <= state.right
    falls = is_any & (_rise(first, state.low) > 0)
    climbs = is_any & (_rise(state.high, last) > 0)
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
    anew = _Chord(*jnp.where(start > state.pivot, 0, arrays.to_pivot[start]))
    anew = _joined(anew, state.since)
    anew = _tilted(anew, -edge * (entries[2][state.here] + 1))
    low = _either(falls, _joined(state.low, first), state.low)
    high = _either(climbs, _joined(state.high, last), state.high)
    bends = is_hill | is_valley
    row = jnp.stack([_either(is_hill, first, last).slope, edge - state.bend])
    settled = state._replace(
        begin=jnp.where(bends, start, state.begin),
        bend=jnp.where(bends, edge, state.bend),
        low=_either(is_hill, anew, low),
        high=_either(is_valley, anew, high),
        left=state.left + falls,
        middle=state.middle + is_hill - is_valley,
        right=state.right - climbs,
    )
    return settled, found.at[state.begin].set(row), (done, is_late, start)


def _advance(
    entries: Any, arrays: _Arrays, state: _State, is_late: Any, start: Any
) -> tuple[_State, _Arrays]:
    """Takes in the next entry or, where sums to the pivot are late, one of those."""
    n, after = entries[0].shape[0], state.here + 1
    bound = entries[2][state.here]
    closes, nothing = ~is_late & (bound == 0), jax.tree.map(jnp.zeros_like, state.tail)
    place = jnp.where(is_late, state.back, after)
    since = _either(closes, nothing, state.since)
    summed = _joined(_alone(entries, place), _either(is_late, state.tail, since))
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
        since=_either(is_summed, nothing, _either(is_late, state.since, summed)),
        back=jnp.where(is_late, state.back - 1, after),
        tail=_either(is_late, summed, nothing),
    ), _Arrays(
        chords=arrays.chords.at[jnp.stack(sides)].set(
            jnp.stack([jnp.stack(state.low), jnp.stack(state.high)])
        ),
        ends=arrays.ends.at[jnp.stack(sides)].set(state.here),
        to_pivot=arrays.to_pivot.at[place].set(jnp.stack(summed)),
    )


def _alone(entries: Any, place: Any) -> _Chord:
    values, weights, _ = entries
    return _Chord(weights[place], values[place], jnp.zeros_like(values[place]))


def _ends_here(entries: Any, place: Any, low: Any, high: Any) -> tuple[_Chord, _Chord]:
    """The chords to both edges at one entry, from `-low` and `-high` before it."""
    alone, bound = _alone(entries, place), entries[2][place]
    return _tilted(alone, low - bound), _tilted(alone, high + bound)


def _joined(first: _Chord, second: _Chord) -> _Chord:
    """The chord over the entries of two; its slope is the mean by weight."""
    is_heavier = first.weight >= second.weight
    heavy = _either(is_heavier, first, second)
    light = _either(is_heavier, second, first)
    weight = heavy.weight + light.weight
    share = light.weight / jnp.where(weight > 0, weight, 1)
    return _rounded(weight, heavy.slope, heavy.rest + share * _rise(heavy, light))


def _tilted(chord: _Chord, rise: Any) -> _Chord:
    """The chord that ends so much higher."""
    return _rounded(chord.weight, chord.slope, chord.rest + rise / chord.weight)


def _rounded(weight: Any, slope: Any, rest: Any) -> _Chord:
    near = slope + rest
    return _Chord(weight, near, (slope - near) + rest)


def _rise(first: _Chord, second: _Chord) -> Any:
    """By how much the second chord is the steeper one."""
    return (second.slope - first.slope) + (second.rest - first.rest)


def _either(chosen: Any, first: _Chord, second: _Chord) -> _Chord:
    return jax.tree.map(lambda a, b: jnp.where(chosen, a, b), first, second)
