"""Thresholds and scales that make an array meet a bound, found without sorting.

Newton's method on a decreasing convex function starts below the root and rises to it.
It needs nothing but sums and maxima over axes, which a leaf that is spread over devices
answers without being gathered. The loops are not differentiated: a last Newton step is,
whose derivative is that of the root by the implicit function theorem.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

from jaxreg._core import groups

_MOST_NEWTON_STEPS = 60

_Round = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]

# A round of cuts leaves the rounding of what it cut: from 1e30 to 1e-30 in ten.
_MOST_ROUNDS = 20
_STUCK_BELOW = 1e-4


def cut_to_total(
    heights: jax.Array, slopes: jax.Array, total: jax.Array, axes: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    """`max(heights - level slopes, 0)` with the level at which a group sums to `total`.

    Returns the pieces and the levels, kept as axes of length 1. `slopes` >= 0 has the
    axes of `heights` or length 1 there; in the level they count as multiples of their
    largest. Where a slope is 0 a height counts as it is, and the others share the rest.

    Reference: Michelot 1986, A finite algorithm for finding the projection of a point
    onto the canonical simplex of R^n; here for slopes.
    """
    within = groups.within_axes(axes, heights.ndim)
    moves = slopes > 0
    fixed = jnp.sum(jnp.where(moves, 0, heights), axis=within, keepdims=True)
    left = jnp.maximum(total - fixed, 0)
    lean = _relative(slopes, within)
    still = jax.lax.stop_gradient((heights, lean, left))
    depth, level = _settled(*still, axes)
    depth = depth + (heights - still[0]) - level * (lean - still[1])
    is_cut = moves & (depth >= 0)
    last, _ = _newton_level(depth, lean, left, is_cut, within)
    pieces = jnp.where(is_cut, jnp.maximum(depth - last * lean, 0), 0)
    return jnp.where(moves, pieces, heights), level + last


def _relative(slopes: jax.Array, within: tuple[int, ...]) -> jax.Array:
    steepest = jnp.max(slopes, axis=within, keepdims=True)
    return slopes / jax.lax.stop_gradient(jnp.where(steepest > 0, steepest, 1))


@functools.partial(jax.jit, static_argnames="axes")
def _settled(
    heights: jax.Array, lean: jax.Array, total: jax.Array, axes: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    """`heights - level lean` and the level, as exact as its positive part can be.

    A level near a height leaves nothing of the height's digits. What is left over is
    cut again, until it sums to the total or rounding stops it.
    """
    within = groups.within_axes(axes, heights.ndim)
    moves, slack = lean > 0, 8 * jnp.finfo(heights.dtype).eps

    def settle(carry: _Round) -> _Round:
        depth, level, gap, _, rounds = carry
        move = _level(depth, lean, total, axes)
        depth = depth - move * lean
        positive = jnp.where(moves, jnp.maximum(depth, 0), 0)
        off = jnp.abs(jnp.sum(positive, axis=within, keepdims=True) - total)
        is_stuck = (off >= gap) & (off <= _STUCK_BELOW * total)
        is_off = jnp.any((off > slack * total) & ~is_stuck)
        return depth, level + move, off, is_off, rounds + 1

    def is_unsettled(carry: _Round) -> jax.Array:
        return carry[3] & (carry[4] < _MOST_ROUNDS)

    zero = jnp.sum(jnp.zeros_like(heights), axis=within, keepdims=True)
    carry = heights, zero, zero + jnp.inf, jnp.any(moves), jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(is_unsettled, settle, carry)[:2]


def _level(
    depth: jax.Array, lean: jax.Array, total: jax.Array, axes: tuple[int, ...]
) -> jax.Array:
    """The root, from below: Newton's steps only rise until the summands stay the same.

    The start is the larger of two lower bounds: a step from level 0, on whichever side
    of the root that is, and the level at which one summand alone makes the total.
    """
    within = groups.within_axes(axes, depth.ndim)
    moves = lean > 0
    alone = jnp.where(moves, (depth - total) / jnp.where(moves, lean, 1), -jnp.inf)
    lowest = jnp.max(alone, axis=within, keepdims=True)
    lowest = jnp.where(jnp.isfinite(lowest), lowest, 0)
    first, is_any = _newton_level(depth, lean, total, moves & (depth >= 0), within)
    start = jnp.where(is_any, jnp.maximum(lowest, first), lowest)

    def rise(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        level, _ = carry
        is_cut = moves & (depth >= level * lean)
        found, is_any = _newton_level(depth, lean, total, is_cut, within)
        higher = jnp.where(is_any, jnp.maximum(level, found), level)
        return higher, jnp.any(higher > level)

    carry = start, jnp.any(moves)
    return jax.lax.while_loop(lambda carry: carry[1], rise, carry)[0]


def _newton_level(
    depth: jax.Array,
    lean: jax.Array,
    total: jax.Array,
    is_cut: jax.Array,
    within: tuple[int, ...],
) -> tuple[jax.Array, jax.Array]:
    height = jnp.sum(jnp.where(is_cut, depth, 0), axis=within, keepdims=True)
    slope = jnp.sum(jnp.where(is_cut, lean, 0), axis=within, keepdims=True)
    found = (height - total) / jnp.where(slope > 0, slope, 1)
    is_any = (slope > 0) & jnp.isfinite(found)
    return jnp.where(is_any, found, 0), is_any


def norm(leaf: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Per group, the Euclidean norm, kept as axes of length 1; right at every scale."""
    size = groups.size(axes, leaf.shape)
    return math.sqrt(size) * groups.root_mean_square(leaf, axes)


def shrink_to_norm(
    leaf: jax.Array, slopes: jax.Array, radius: jax.Array, axes: tuple[int, ...]
) -> jax.Array:
    """`leaf / (1 + level slopes)` with the level >= 0 that brings a norm to `radius`.

    Groups inside stay as they are. Where a slope is 0 an entry stays, and the others
    share the rest. The inverse of the norm is a concave function of the level, on which
    Newton's method rises from below.

    Reference: More and Sorensen 1983, Computing a trust region step, section 3.
    """
    within = groups.within_axes(axes, leaf.ndim)
    moves = slopes > 0
    free = jnp.where(moves, leaf, 0)
    fixed = norm(leaf - free, axes)
    share = jnp.minimum(fixed / jnp.where(radius > 0, radius, 1), 1)
    room = (1 - share) * (1 + share)
    has_room = room > 0
    left = radius * jnp.where(has_room, jnp.sqrt(jnp.where(has_room, room, 1)), 0)
    is_outside = norm(free, axes) > left
    largest = jnp.max(jnp.abs(free), axis=within, keepdims=True)
    # Its reciprocal must be neither infinite nor subnormal.
    largest = jnp.minimum(largest, 1 / jnp.finfo(leaf.dtype).tiny)
    largest = jax.lax.stop_gradient(jnp.where(largest > 0, largest, 1))
    # No quotient: XLA makes of a quotient of quotients one by a product, and overflows.
    unit = free * (1 / largest)
    # Further outside the level is past every slope, and the direction stays.
    floor = jnp.finfo(leaf.dtype).tiny ** 0.25
    target = left / largest
    ratio = unit / jnp.maximum(target, floor)
    lean = _relative(slopes, within)
    level = _scale_level(*jax.lax.stop_gradient((ratio, lean, is_outside)), axes)
    level = level + _scale_move(ratio, lean, is_outside, within, level)
    bend = jnp.where(target > floor, 1, 0) + level * lean
    bent = unit / jnp.where(is_outside & moves, bend, 1)
    length = norm(bent, axes)
    shrunk = left * (bent / jnp.where(length > 0, length, 1))
    return jnp.where(is_outside & moves, shrunk, leaf)


@functools.partial(jax.jit, static_argnames="axes")
def _scale_level(
    ratio: jax.Array, lean: jax.Array, is_outside: jax.Array, axes: tuple[int, ...]
) -> jax.Array:
    """The level at which `ratio / (1 + level lean)` has norm 1, from below.

    The start is the largest of three lower bounds: every slope as steep as the
    steepest, one entry alone, and every slope as flat as the flattest.
    """
    within = groups.within_axes(axes, ratio.ndim)
    moves = lean > 0
    slope = jnp.where(moves, lean, 1)
    single = jnp.where(moves, (jnp.abs(ratio) - 1) / slope, 0)
    fastest = norm(jnp.where(moves, ratio / slope, 0), axes)
    flattest = jnp.min(slope, axis=within, keepdims=True)
    bounds = (
        jnp.max(single, axis=within, keepdims=True),
        norm(ratio, axes) - 1,
        fastest - 1 / flattest,
    )
    start = jnp.maximum(functools.reduce(jnp.maximum, bounds), 0)
    slack = 4 * jnp.finfo(ratio.dtype).eps

    def rise(
        carry: tuple[jax.Array, jax.Array, jax.Array],
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        level, _, step_count = carry
        move = _scale_move(ratio, lean, is_outside, within, level)
        level = jnp.maximum(level + move, 0)
        return level, jnp.any(jnp.abs(move) > slack * level), step_count + 1

    def is_moving(carry: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        return carry[1] & (carry[2] < _MOST_NEWTON_STEPS)

    carry = start, jnp.any(is_outside), jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(is_moving, rise, carry)[0]


def _scale_move(
    ratio: jax.Array,
    lean: jax.Array,
    is_outside: jax.Array,
    within: tuple[int, ...],
    level: jax.Array,
) -> jax.Array:
    below = 1 + level * lean
    square = (ratio / below) ** 2
    # Groups inside must not send a NaN into the gradient of the others.
    total = jnp.sum(square, axis=within, keepdims=True)
    total = jnp.where(is_outside, total, 1)
    # In units of 1 + level, in which no square of a quotient underflows.
    unit = 1 + jax.lax.stop_gradient(level)
    turn = jnp.sum(square * (lean * unit / below), axis=within, keepdims=True)
    is_turning = is_outside & (turn > 0)
    return unit * (total * (jnp.sqrt(total) - 1) / jnp.where(is_turning, turn, 1))
