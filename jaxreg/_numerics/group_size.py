"""The size of each group in a prox whose step varies within groups.

The prox of `sum_g n_g phi(r_g)` is `x_i = v_i t / (t + s_i phi'(t))` with `t` the root
mean square of `x`. So `t` solves `stretch(t) = 1`, where the stretch of a group is the
root mean square of `v_i / (t + s_i phi'(t))`.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from jaxreg._core import groups
from jaxreg._core.leafwise import Elementwise

# Steps over 12 decades took at most 14 in float32, as measured; 2 to 6 in training.
_MOST_EVALUATIONS = 60
# The share of a size that a secant step leaves at least, since the root is above 0.
# Shares of 0.1, 0.01 and 0.001 took at most 9, 14 and 18 evaluations, as measured.
_LEAST_SHARE = 0.01

_Carry = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]
"""Last size and its excess, next size, True to go on, number of evaluations."""
_Inputs = tuple[Elementwise, jax.Array, jax.Array]
"""Magnitude, leaf and step, or their tangents."""


@functools.partial(jax.custom_jvp, nondiff_argnums=(3,))
def group_size(
    magnitude: Elementwise, leaf: jax.Array, step: jax.Array, axes: tuple[int, ...]
) -> jax.Array:
    """The root mean square of the prox of each group, kept as axes of length 1.

    It is exactly 0 where the root mean square of `v_i / s_i` is at most `phi'(0)`.
    Elsewhere it solves `1 / stretch(t) - 1 = 0`, whose left side, the excess, increases
    in `t`, is concave where `phi'` is, and is nearly linear. We solve it by the secant
    method (2 to 6 evaluations in practice, each of one pass over the group). It starts
    from size 0, whose excess the test for 0 has computed, and from the prox for the
    uniform step that gives the same test.
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
    uniform = magnitude.leaf_prox(rms, jnp.where(is_active, rms / pull, 0.0))
    start = jnp.where(is_active, jnp.maximum(uniform, bounds.eps * rms), 1.0)
    size = _solve(magnitude, leaf, step, is_active, slope / pull - 1, start, axes)
    # Comparisons with NaN are false: a NaN would otherwise come out as a zero group.
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
    """Solves `1 / stretch(size) - 1 = 0` by the secant method."""
    # Convergence is superlinear: after a move of sqrt(eps) the error is rounding.
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
    stretched = leaf / (size + step * magnitude.leaf_subgradient(size))
    # Numbers of the penalty may be float64 beside float32 leaves.
    return groups.fast_root_mean_square(stretched, axes).astype(leaf.dtype)


@group_size.defjvp
def _group_size_jvp(
    axes: tuple[int, ...], primals: _Inputs, tangents: _Inputs
) -> tuple[jax.Array, jax.Array]:
    """Implicit function theorem for `stretch = 1`: `dt = -d(stretch) / stretch'`."""
    magnitude, leaf, step = primals
    size = group_size(magnitude, leaf, step, axes)
    is_active = size > 0
    root = jnp.where(is_active, size, 1.0)

    def at_root(magnitude: Elementwise, leaf: jax.Array, step: jax.Array) -> jax.Array:
        return _stretch(magnitude, leaf, step, root, axes)

    def of_size(size: jax.Array) -> jax.Array:
        return _stretch(magnitude, leaf, step, size, axes)

    _, by_inputs = jax.jvp(at_root, primals, tangents)
    _, by_size = jax.jvp(of_size, (root,), (jnp.ones_like(root),))
    change = -by_inputs / jnp.where(by_size < 0, by_size, -1.0)
    return size, jnp.where(is_active, change, 0.0)
