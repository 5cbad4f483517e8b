"""The prox of anisotropic total variation in two dimensions, by splitting."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from jaxreg._numerics.taut_string import total_variation_prox

_MOST_ROUNDS = 5000  # Ends loops in which rounding keeps the moves above their limit.
# The step of the splitting, where planes have size 1. It affects speed alone.
_STEP = 1.0

_Carry = tuple[jax.Array, jax.Array, jax.Array, jax.Array]
"""The point between the two proxes, x, True for planes that move, and the rounds."""


def planar_variation_prox(planes: jax.Array, threshold: jax.Array) -> jax.Array:
    r"""`argmin_x t (sum |x_{i+1,j} - x_ij| + sum |x_{i,j+1} - x_ij|) + |x - v|^2 / 2`.

    `planes` has axes `(plane, i, j)` and `threshold` one number per plane. The mean of
    a plane, which costs nothing, is taken out first and added back.

    On a region of equal neighbours the result is the mean of `v` plus a multiple of t:
    its derivative averages over the region the tangents `dv - (v - x) dlog t`.
    """
    moves = threshold > 0
    positive = jnp.where(moves, threshold, 1.0)
    constants = jax.lax.stop_gradient((planes, positive))
    solution, regions, _ = solve(*constants)
    subgradient = (constants[0] - solution) / constants[1]
    tangent = (planes - constants[0]) - subgradient * (positive - constants[1])
    return jnp.where(moves, solution + _region_means(tangent, regions), planes)


@jax.jit
def solve(
    planes: jax.Array, threshold: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The prox, a label of the region of each entry, and the number of rounds.

    Douglas-Rachford splitting of the sum along j, with the distance from `planes`, and
    the sum along i: both have exact proxes. A plane rests once its moves are below the
    limit, whatever the others do.

    Reference: Barbero and Sra 2018, Modular proximal optimization for multidimensional
    total-variation regularization, section 4.
    """
    mean = jnp.mean(planes, axis=(1, 2), keepdims=True)
    rest = planes - mean
    scale = _largest(rest)
    scale = jnp.where(scale > 0, scale, 1.0)
    rest = rest / scale
    # A dual is at most the sum of all entries: beyond, thresholds are alike.
    threshold = jnp.minimum(threshold / scale, float(planes[0].size))
    limit = max(20 * float(jnp.finfo(planes.dtype).eps), 1e-13)

    def along_j(point: jax.Array) -> tuple[jax.Array, jax.Array]:
        middle = (_STEP * rest + point) / (1 + _STEP)
        return total_variation_prox(middle, threshold * (_STEP / (1 + _STEP)))

    def along_i(point: jax.Array) -> tuple[jax.Array, jax.Array]:
        lines, begins = total_variation_prox(point.swapaxes(1, 2), threshold * _STEP)
        return lines.swapaxes(1, 2), begins

    def goes_on(carry: _Carry) -> jax.Array:
        *_, goes, rounds = carry
        return (rounds < _MOST_ROUNDS) & jnp.any(goes)

    def refine(carry: _Carry) -> _Carry:
        point, x, goes, rounds = carry
        new = along_j(point)[0]
        change = along_i(2 * new - point)[0] - new
        is_moving = _largest(change) + _largest(new - x) > limit
        return (
            jnp.where(goes, point + change, point),
            jnp.where(goes, new, x),
            goes & is_moving,
            rounds + 1,
        )

    carry = (rest, rest, threshold > 0, jnp.zeros((), jnp.int32))
    point, x, _, rounds = jax.lax.while_loop(goes_on, refine, carry)
    regions = _regions(along_j(point)[1], along_i(2 * x - point)[1], planes.shape)
    return mean + x * scale, regions, rounds


def _largest(planes: jax.Array) -> jax.Array:
    return jnp.max(jnp.abs(planes), axis=(1, 2), keepdims=True)


def _regions(
    along_j: jax.Array, along_i: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
    """The first entry of the region of each, from the segments along both axes."""
    size = along_j.size
    turned = (shape[0], shape[2], shape[1])
    columns = along_i.reshape(turned).swapaxes(1, 2).reshape(-1)
    least = functools.partial(jax.ops.segment_min, num_segments=size)

    def spread(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        labels, _ = carry
        new = least(labels, along_j)[along_j]
        new = least(new, columns)[columns]
        return new, jnp.any(new != labels)

    start = (jnp.arange(size, dtype=jnp.int32), jnp.array(True))
    return jax.lax.while_loop(lambda carry: carry[1], spread, start)[0]


def _region_means(planes: jax.Array, regions: jax.Array) -> jax.Array:
    def total(entries: jax.Array) -> jax.Array:
        return jax.ops.segment_sum(entries, regions, regions.size)

    sums = total(planes.reshape(-1))
    counts = total(jnp.ones(regions.size, planes.dtype))
    return (sums / jnp.maximum(counts, 1))[regions].reshape(planes.shape)
