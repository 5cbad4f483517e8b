"""Sort-free projections onto the simplex and norm balls: a search for the level.

The level is the dual variable of the bound. It is the root of a monotone function of
one number per group, which Newton's method approaches from below. An iteration needs
nothing but sums and maxima over axes, so that a leaf sharded over devices is never
gathered. The loops are not differentiated. One more Newton step after them is, and its
derivative is that of the root by the implicit function theorem.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxreg._core import groups

# The norm is exact after 19 steps for slopes over 30 decades, as measured; the limit
# ends loops in which rounding keeps moving the level.
_MOST_NEWTON_STEPS = 60
# A round gains the digits of one mantissa, 7 in float32: 1e30 to 1e-30 takes nine.
_MOST_ROUNDS = 20
# Sums over 1e6 entries round by sqrt(1e6) eps = 1e-4 in float32: that is no progress.
_STUCK_BELOW = 1e-4

_Round = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]
"""Remainder, level, error of the sum, True to go on, number of rounds."""
_Rise = tuple[jax.Array, jax.Array, jax.Array]
"""Level, True to go on, number of steps."""


class Cut(NamedTuple):
    """The result of `cut_to_total`."""

    pieces: jax.Array
    """`max(v_i - level s_i, 0)`."""
    level: jax.Array
    """One number per group, kept as axes of length 1."""
    is_active: jax.Array
    """True for the entries on which the level depends."""


def cut_to_total(
    values: jax.Array, slopes: jax.Array, total: jax.Array, axes: tuple[int, ...]
) -> Cut:
    """Returns `x_i = max(v_i - level s_i, 0)` with `sum x = total` in each group.

    `slopes` >= 0 broadcasts against `values`; the level is in units of their largest in
    the group. An entry of slope 0 keeps its value, and the others share the rest of the
    total. Entries at the level count as active: the derivative is that of a
    neighbouring point where they are.

    Reference: Michelot 1986, A finite algorithm for finding the projection of a point
    onto the canonical simplex of R^n; here with slopes.
    """
    within = groups.within_axes(axes, values.ndim)
    moves = slopes > 0
    fixed = jnp.sum(jnp.where(moves, 0, values), axis=within, keepdims=True)
    rest = jnp.where(fixed > total, 0, total - fixed)
    slopes = _relative(slopes, within)
    constants = jax.lax.stop_gradient((values, slopes, rest))
    remainder, level = _remainder_and_level(*constants, axes)
    remainder += (values - constants[0]) - level * (slopes - constants[1])
    is_active = moves & (remainder >= 0)
    correction, _ = _newton_level(remainder, slopes, rest, is_active, within)
    cut = remainder - correction * slopes
    # The derivative of max(cut, 0) at 0 would be half that of an active entry.
    cut = jnp.where(is_active, cut + jax.lax.stop_gradient(jnp.maximum(-cut, 0)), 0)
    return Cut(jnp.where(moves, cut, values), level + correction, is_active)


def _relative(slopes: jax.Array, within: tuple[int, ...]) -> jax.Array:
    steepest = jnp.max(slopes, axis=within, keepdims=True)
    return slopes / jax.lax.stop_gradient(jnp.where(steepest > 0, steepest, 1))


@functools.partial(jax.jit, static_argnames="axes")
def _remainder_and_level(
    values: jax.Array, slopes: jax.Array, total: jax.Array, axes: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    """Solves for `level`; repeats on `values - level slopes` until the sum is exact.

    A level close to a value cancels the digits of that value. What remains is cut
    again, until it sums to the total or rounding stops it.
    """
    within = groups.within_axes(axes, values.ndim)
    moves, slack = slopes > 0, 8 * jnp.finfo(values.dtype).eps

    def refine(carry: _Round) -> _Round:
        remainder, level, last_error, _, rounds = carry
        move = _level_from_below(remainder, slopes, total, axes)
        remainder = remainder - move * slopes
        positive = jnp.where(moves, jnp.maximum(remainder, 0), 0)
        error = jnp.abs(jnp.sum(positive, axis=within, keepdims=True) - total)
        is_stuck = (error >= last_error) & (error <= _STUCK_BELOW * total)
        is_inexact = jnp.any((error > slack * total) & ~is_stuck)
        return remainder, level + move, error, is_inexact, rounds + 1

    def goes_on(carry: _Round) -> jax.Array:
        return carry[3] & (carry[4] < _MOST_ROUNDS)

    zero = jnp.sum(jnp.zeros_like(values), axis=within, keepdims=True)
    carry = values, zero, zero + jnp.inf, jnp.any(moves), jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(goes_on, refine, carry)[:2]


def _level_from_below(
    values: jax.Array, slopes: jax.Array, total: jax.Array, axes: tuple[int, ...]
) -> jax.Array:
    """Solves `sum max(values - level slopes, 0) = total` by Newton's method.

    The sum is convex and falls with the level, so that steps from below the root only
    rise, until the active set stays the same. The start is the larger of two lower
    bounds: a Newton step from level 0, on whichever side of the root that is, and the
    level at which one entry alone makes the total.
    """
    within = groups.within_axes(axes, values.ndim)
    moves = slopes > 0
    alone = jnp.where(moves, (values - total) / jnp.where(moves, slopes, 1), -jnp.inf)
    lowest = jnp.max(alone, axis=within, keepdims=True)
    lowest = jnp.where(jnp.isfinite(lowest), lowest, 0)
    is_active = moves & (values >= 0)
    from_zero, is_solved = _newton_level(values, slopes, total, is_active, within)
    start = jnp.where(is_solved, jnp.maximum(lowest, from_zero), lowest)

    def rise(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        level, _ = carry
        is_active = moves & (values >= level * slopes)
        newton, is_solved = _newton_level(values, slopes, total, is_active, within)
        higher = jnp.where(is_solved, jnp.maximum(level, newton), level)
        return higher, jnp.any(higher > level)

    carry = start, jnp.any(moves)
    return jax.lax.while_loop(lambda carry: carry[1], rise, carry)[0]


def _newton_level(
    values: jax.Array,
    slopes: jax.Array,
    total: jax.Array,
    is_active: jax.Array,
    within: tuple[int, ...],
) -> tuple[jax.Array, jax.Array]:
    """Returns `(sum v - total) / sum s` over the active set, and whether it is finite.

    Without a finite quotient the level is 0.
    """
    value_sum = jnp.sum(jnp.where(is_active, values, 0), axis=within, keepdims=True)
    slope_sum = jnp.sum(jnp.where(is_active, slopes, 0), axis=within, keepdims=True)
    level = (value_sum - total) / jnp.where(slope_sum > 0, slope_sum, 1)
    is_solved = (slope_sum > 0) & jnp.isfinite(level)
    return jnp.where(is_solved, level, 0), is_solved


def norm(leaf: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Euclidean norm per group, in axes of length 1, without over- or underflow."""
    size = groups.size(axes, leaf.shape)
    return math.sqrt(size) * groups.root_mean_square(leaf, axes)


def shrink_to_norm(
    leaf: jax.Array, slopes: jax.Array, radius: jax.Array, axes: tuple[int, ...]
) -> jax.Array:
    """Returns `x_i = v_i / (1 + level s_i)` with `||x|| = radius` in each group.

    The level is >= 0: groups inside the ball stay as they are. An entry of slope 0
    keeps its value, and the others share the rest of the radius. The inverse of the
    norm is a concave function of the level, on which Newton's method rises from below.

    Reference: More and Sorensen 1983, Computing a trust region step, section 3.
    """
    within = groups.within_axes(axes, leaf.ndim)
    moves = slopes > 0
    free = jnp.where(moves, leaf, 0)
    fixed = norm(leaf - free, axes)
    share = jnp.minimum(fixed / jnp.where(radius > 0, radius, 1), 1)
    free_square = (1 - share) * (1 + share)
    has_rest = free_square > 0
    root = jnp.sqrt(jnp.where(has_rest, free_square, 1))
    rest = radius * jnp.where(has_rest, root, 0)
    is_outside = norm(free, axes) > rest
    largest = jnp.max(jnp.abs(free), axis=within, keepdims=True)
    # Its reciprocal must be neither infinite nor subnormal.
    largest = jnp.minimum(largest, 1 / jnp.finfo(leaf.dtype).tiny)
    largest = jax.lax.stop_gradient(jnp.where(largest > 0, largest, 1))
    # No quotient: XLA turns a quotient of quotients into one by a product: overflow.
    unit = free * (1 / largest)
    # With a smaller radius the level exceeds every slope and the direction is the same.
    floor = jnp.finfo(leaf.dtype).tiny ** 0.25
    target = rest / largest
    ratio = unit / jnp.maximum(target, floor)
    slopes = _relative(slopes, within)
    level = _scale_level(*jax.lax.stop_gradient((ratio, slopes, is_outside)), axes)
    # Each step doubles the order up to which the derivatives are those of the root.
    for _ in range(2):
        level = level + _scale_step(ratio, slopes, is_outside, within, level)
    divisor = jnp.where(target > floor, 1, 0) + level * slopes
    direction = unit / jnp.where(is_outside & moves, divisor, 1)
    length = norm(direction, axes)
    shrunk = rest * (direction / jnp.where(length > 0, length, 1))
    return jnp.where(is_outside & moves, shrunk, leaf)


@functools.partial(jax.jit, static_argnames="axes")
def _scale_level(
    ratio: jax.Array, slopes: jax.Array, is_outside: jax.Array, axes: tuple[int, ...]
) -> jax.Array:
    """Solves `||ratio / (1 + level slopes)|| = 1` by Newton's method from below.

    The start is the largest of three lower bounds: all slopes equal to the steepest,
    one entry alone, and all slopes equal to the flattest.
    """
    within = groups.within_axes(axes, ratio.ndim)
    moves = slopes > 0
    slope = jnp.where(moves, slopes, 1)
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

    def rise(carry: _Rise) -> _Rise:
        level, _, step_count = carry
        move = _scale_step(ratio, slopes, is_outside, within, level)
        level = jnp.maximum(level + move, 0)
        return level, jnp.any(jnp.abs(move) > slack * level), step_count + 1

    def is_moving(carry: _Rise) -> jax.Array:
        return carry[1] & (carry[2] < _MOST_NEWTON_STEPS)

    carry = start, jnp.any(is_outside), jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(is_moving, rise, carry)[0]


def _scale_step(
    ratio: jax.Array,
    slopes: jax.Array,
    is_outside: jax.Array,
    within: tuple[int, ...],
    level: jax.Array,
) -> jax.Array:
    """The Newton step for `1 / ||ratio / (1 + level slopes)|| = 1`; 0 inside."""
    divisor = 1 + level * slopes
    square = (ratio / divisor) ** 2
    # Groups inside must not send a NaN into the gradient of the others.
    total = jnp.sum(square, axis=within, keepdims=True)
    total = jnp.where(is_outside, total, 1)
    # In units of 1 + level, in which no square of a quotient underflows.
    unit = 1 + jax.lax.stop_gradient(level)
    slope = jnp.sum(square * (slopes * unit / divisor), axis=within, keepdims=True)
    is_falling = is_outside & (slope > 0)
    return unit * (total * (jnp.sqrt(total) - 1) / jnp.where(is_falling, slope, 1))
