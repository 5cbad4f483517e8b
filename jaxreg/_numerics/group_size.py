"""The size of each group in a prox whose step varies within groups.

The prox of `sum_g n_g phi(r_g)` is `x_i = v_i t / (t + s_i phi'(t))` with `t` the root
mean square of the answer. The equation for `t` says that the root mean square of
`v_i / (t + s_i phi'(t))`, the `stretch` of a group, is 1.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxreg._core import groups
from jaxreg._core.leafwise import Elementwise

_MOST_EVALUATIONS = 60
# Where the secant points below 0, so much of the size is left.
_LEAST_SHARE = 0.01

_Carry = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def group_size(
    magnitude: Elementwise, leaf: jax.Array, step: jax.Array, axes: tuple[int, ...]
) -> jax.Array:
    """Per group, the root mean square of the prox, kept as axes of length 1.

    It is 0 exactly where the root mean square of `v_i / s_i` is at most `phi'(0)`. The
    excess, `1 / stretch - 1`, rises with the size, concave where `phi'` is, and nearly
    straight: the secant method needs one pass over the group for each evaluation, and
    two to six of them. It starts at size 0, where the test for 0 has found the excess,
    and at the prox for the uniform step that gives the same test.
    """
    moves = leaf != 0
    # A step of 0 makes the speed infinite: its entry stays, and so does the group.
    speed = jnp.where(moves, leaf / jnp.where(moves, step, 1.0), 0.0)
    pull = groups.fast_root_mean_square(speed, axes)
    rms = groups.fast_root_mean_square(leaf, axes)
    slope = jnp.asarray(magnitude.slope_at_zero, leaf.dtype)
    is_active = (pull > slope) | ((slope <= 0) & (rms > 0))
    bounds = jnp.finfo(leaf.dtype)
    pull = jnp.maximum(pull, bounds.tiny)
    rms = rms.clip(bounds.tiny**0.5, bounds.max**0.5)
    alike = magnitude.leaf_prox(rms, jnp.where(is_active, rms / pull, 0.0))
    start = jnp.where(is_active, jnp.maximum(alike, bounds.eps * rms), 1.0)
    size = _solve(magnitude, leaf, step, is_active, slope / pull - 1, start, axes)
    # A NaN is above no slope, and must not pass for a group that is zero.
    size = jnp.where(is_active, size, jnp.where(jnp.isnan(pull), pull, 0.0))
    return size.astype(leaf.dtype)


@functools.partial(jax.jit, static_argnames="axes")
def _solve(
    magnitude: Elementwise,
    leaf: jax.Array,
    step: jax.Array,
    is_active: jax.Array,
    excess_at_zero: jax.Array,
    start: jax.Array,
    axes: tuple[int, ...],
) -> jax.Array:
    """The size at which the excess is 0, by the secant method."""
    # Its last move is the square root of rounding: what it leaves is rounding.
    slack = jnp.finfo(leaf.dtype).eps ** 0.5

    def improve(carry: _Carry) -> _Carry:
        last, excess_at_last, size, _, count = carry
        excess = 1 / _stretch(magnitude, leaf, step, size, axes) - 1
        rise = excess - excess_at_last
        run = jnp.where(rise == 0, 0.0, (size - last) / jnp.where(rise == 0, 1.0, rise))
        better = jnp.maximum(size - excess * run, _LEAST_SHARE * size)
        is_moving = jnp.any(is_active & (jnp.abs(better - size) > slack * size))
        return size, excess, better, is_moving, count + 1

    def goes_on(carry: _Carry) -> jax.Array:
        return carry[3] & (carry[4] < _MOST_EVALUATIONS)

    zero = jnp.zeros_like(start)
    carry = zero, excess_at_zero, start, jnp.any(is_active), jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(goes_on, improve, carry)[2]


def _stretch(
    magnitude: Elementwise,
    leaf: jax.Array,
    step: jax.Array,
    size: jax.Array,
    axes: tuple[int, ...],
) -> jax.Array:
    answer = leaf / (size + step * magnitude.leaf_subgradient(size))
    # Numbers of the penalty may be float64 beside float32 leaves.
    return groups.fast_root_mean_square(answer, axes).astype(leaf.dtype)


@group_size.defjvp
def _group_size_jvp(axes: tuple[int, ...], primals: Any, tangents: Any) -> Any:
    """The implicit function theorem: the stretch stays 1."""
    magnitude, leaf, step = primals
    size = group_size(magnitude, leaf, step, axes)
    is_active = size > 0
    still = jnp.where(is_active, size, 1.0)

    def at_size(magnitude: Elementwise, leaf: jax.Array, step: jax.Array) -> jax.Array:
        return _stretch(magnitude, leaf, step, still, axes)

    def at_numbers(size: jax.Array) -> jax.Array:
        return _stretch(magnitude, leaf, step, size, axes)

    _, drift = jax.jvp(at_size, primals, tangents)
    _, turn = jax.jvp(at_numbers, (still,), (jnp.ones_like(still),))
    change = -drift / jnp.where(turn < 0, turn, -1.0)
    return size, jnp.where(is_active, change, 0.0)
