"""Functions of singular values, `U diag(f(s)) V^T` for `U diag(s) V^T`.

The derivative is written out: that of the singular vectors is NaN where singular values
meet or vanish.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Map = Callable[[Any, jax.Array], jax.Array]

# Ten times what should be 0, over eps, root of longest side and largest, as measured.
NOISE = 4.0


def decompose(matrix: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`U, sigma, V^T`, with 0 for the singular values that rounding alone made."""
    left, sizes, right = jnp.linalg.svd(matrix, full_matrices=False)
    unit = jnp.finfo(matrix.dtype).eps * math.sqrt(max(matrix.shape))
    return left, jnp.where(sizes > NOISE * unit * sizes[:1], sizes, 0.0), right


def rank(matrix: jax.Array) -> jax.Array:
    """The number of singular values above rounding, in the dtype of the matrix.

    A matrix of low rank stored in bfloat16 has singular values of the rounding of its
    entries, about `eps ||matrix||_F (1/sqrt(rows) + 1/sqrt(columns))`: they are not
    counted.
    """
    wide = matrix.astype(jnp.promote_types(matrix.dtype, jnp.float32))
    sizes = decompose(wide)[1]
    spread = sum(1 / math.sqrt(length) for length in matrix.shape)
    largest = jnp.where(sizes[0] > 0, sizes[0], 1.0)
    norm = largest * jnp.linalg.norm(sizes / largest)
    stored = jnp.finfo(matrix.dtype).eps * spread * norm
    return jnp.sum(sizes > stored)


def product(left: jax.Array, sizes: jax.Array, right: jax.Array) -> jax.Array:
    """`U diag(sizes) V^T`; accelerators multiply in less than float32 if not told."""
    return jnp.matmul(left * sizes, right, precision="highest")


def outside(
    left: jax.Array, sizes: jax.Array, right: jax.Array, matrix: jax.Array
) -> jax.Array:
    """`(I - U1 U1^T) matrix (I - V1 V1^T)`, with the vectors of positive sizes."""
    dot = functools.partial(jnp.matmul, precision="highest")
    left, right = left * (sizes > 0), right * (sizes > 0)[:, None]
    rest = matrix - dot(left, dot(left.T, matrix))
    return rest - dot(dot(rest, right.T), right)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def on_singular_values(function: Map, numbers: Any, matrix: jax.Array) -> jax.Array:
    """`U diag(function(numbers, sigma)) V^T`, by one singular value decomposition.

    `function` must be a function of each singular value alone, but for their order.
    Where it changes none of them the matrix is returned as it is.
    """
    left, sizes, right = decompose(matrix)
    moved = function(numbers, sizes).astype(sizes.dtype)
    is_same = jnp.all(moved == sizes)
    return jnp.where(is_same, matrix, product(left, moved, right))


@on_singular_values.defjvp
def _on_singular_values_jvp(
    function: Map, primals: tuple[Any, jax.Array], tangents: tuple[Any, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """Divided differences between the singular values, after Daleckii and Krein."""
    (numbers, matrix), (number_moves, move) = primals, tangents
    left, sizes, right = decompose(matrix)

    def on_sizes(numbers: Any, sizes: jax.Array) -> jax.Array:
        return function(numbers, sizes).astype(sizes.dtype)

    moved, slope = jax.jvp(
        lambda sizes: on_sizes(numbers, sizes), (sizes,), (jnp.ones_like(sizes),)
    )
    by_numbers = jax.jvp(
        lambda numbers: on_sizes(numbers, sizes), (numbers,), (number_moves,)
    )[1]
    stretch, turn, share = _quotients(sizes, moved, slope)
    dot = functools.partial(jnp.matmul, precision="highest")
    inner = dot(dot(left.T, move), right.T)
    core = stretch * (inner + inner.T) / 2 + turn * (inner - inner.T) / 2
    out = dot(dot(left, core + jnp.diag(by_numbers)), right)
    if matrix.shape[0] > sizes.size:
        rest = dot(move, right.T) - dot(left, inner)
        out += dot(rest * share, right)
    if matrix.shape[1] > sizes.size:
        rest = dot(left.T, move) - dot(inner, right)
        out += dot(left * share, rest)
    return on_singular_values(function, numbers, matrix), out


def _quotients(
    sizes: jax.Array, moved: jax.Array, slope: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`(f_i - f_j) / (s_i - s_j)`, `(f_i + f_j) / (s_i + s_j)` and `f_i / s_i`.

    Their limits, slopes of `f`, where the denominator is 0 or all rounding.
    """
    gap = sizes[:, None] - sizes
    is_tie = jnp.abs(gap) <= math.sqrt(jnp.finfo(sizes.dtype).eps) * sizes[0]
    mean_slope = (slope[:, None] + slope) / 2
    quotient = (moved[:, None] - moved) / jnp.where(is_tie, 1.0, gap)
    stretch = jnp.where(is_tie, mean_slope, quotient)
    sums = sizes[:, None] + sizes
    quotient = (moved[:, None] + moved) / jnp.where(sums > 0, sums, 1.0)
    turn = jnp.where(sums > 0, quotient, mean_slope)
    share = jnp.where(sizes > 0, moved / jnp.where(sizes > 0, sizes, 1.0), slope)
    return stretch, turn, share
