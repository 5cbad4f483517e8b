"""Functions of singular values, `U diag(f(s)) V^T` for `U diag(s) V^T`.

Their derivative is written out here, since that of the singular vectors is NaN where
singular values coincide or vanish.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxreg._core.penalty import Tree

Map = Callable[[Tree, jax.Array], jax.Array]
"""From a pytree of numbers and the singular values to new singular values."""

# Singular values that should be 0 came out at up to a tenth of this, as measured, in
# units of eps times the root of the longest side times the largest one.
NOISE = 4.0


def decompose(matrix: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`U, sigma, V^T`, with exact 0 for singular values that are rounding."""
    left, sizes, right = jnp.linalg.svd(matrix, full_matrices=False)
    unit = jnp.finfo(matrix.dtype).eps * math.sqrt(max(matrix.shape))
    return left, jnp.where(sizes > NOISE * unit * sizes[:1], sizes, 0.0), right


def rank(matrix: jax.Array) -> jax.Array:
    """The number of singular values above the rounding of the matrix's dtype.

    Rounding the entries of a low-rank matrix, as in bfloat16, adds singular values of
    about `eps ||matrix||_F (1/sqrt(rows) + 1/sqrt(columns))`, which are not counted.
    """
    wide = matrix.astype(jnp.promote_types(matrix.dtype, jnp.float32))
    sizes = decompose(wide)[1]
    per_entry = sum(1 / math.sqrt(length) for length in matrix.shape)
    largest = jnp.where(sizes[0] > 0, sizes[0], 1.0)
    norm = largest * jnp.linalg.norm(sizes / largest)
    rounding = jnp.finfo(matrix.dtype).eps * per_entry * norm
    return jnp.sum(sizes > rounding)


def product(left: jax.Array, sizes: jax.Array, right: jax.Array) -> jax.Array:
    """`U diag(sizes) V^T` in full precision, since accelerators default to lower."""
    return jnp.matmul(left * sizes[None], right, precision="highest")


def outside(
    left: jax.Array, sizes: jax.Array, right: jax.Array, matrix: jax.Array
) -> jax.Array:
    """`(I - U1 U1^T) matrix (I - V1 V1^T)`, where U1, V1 have positive `sizes`."""
    dot = functools.partial(jnp.matmul, precision="highest")
    left, right = left * (sizes > 0)[None], right * (sizes > 0)[:, None]
    rest = matrix - dot(left, dot(left.T, matrix))
    return rest - dot(dot(rest, right.T), right)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def on_singular_values(function: Map, numbers: Tree, matrix: jax.Array) -> jax.Array:
    """`U diag(function(numbers, sigma)) V^T`, by one singular value decomposition.

    `function` maps each singular value separately; it may use their order. If it
    changes none of them, the matrix is returned unchanged.
    """
    left, sizes, right = decompose(matrix)
    moved = function(numbers, sizes).astype(sizes.dtype)
    is_unchanged = jnp.all(moved == sizes)
    return jnp.where(is_unchanged, matrix, product(left, moved, right))


@on_singular_values.defjvp
def _on_singular_values_jvp(
    function: Map, primals: tuple[Tree, jax.Array], tangents: tuple[Tree, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """The formula of Daleckii and Krein, by divided differences of singular values.

    With `E = U^T dA V` split in its symmetric and antisymmetric part it is
    `U (stretch * sym(E) + turn * anti(E)) V^T`, plus `share` times the part of `dA`
    outside the singular vectors where the matrix is not square.
    """
    (numbers, matrix), (number_moves, move) = primals, tangents
    left, sizes, right = decompose(matrix)

    def on_sizes(numbers: Tree, sizes: jax.Array) -> jax.Array:
        return function(numbers, sizes).astype(sizes.dtype)

    moved, slope = jax.jvp(
        lambda sizes: on_sizes(numbers, sizes), (sizes,), (jnp.ones_like(sizes),)
    )
    by_numbers = jax.jvp(
        lambda numbers: on_sizes(numbers, sizes), (numbers,), (number_moves,)
    )[1]
    stretch, turn, share = _divided_differences(sizes, moved, slope)
    dot = functools.partial(jnp.matmul, precision="highest")
    inner = dot(dot(left.T, move), right.T)
    core = stretch * (inner + inner.T) / 2 + turn * (inner - inner.T) / 2
    out = dot(dot(left, core + jnp.diag(by_numbers)), right)
    if matrix.shape[0] > sizes.size:
        beyond = dot(move, right.T) - dot(left, inner)
        out += dot(beyond * share[None], right)
    if matrix.shape[1] > sizes.size:
        beyond = dot(left.T, move) - dot(inner, right)
        out += dot(left * share[None], beyond)
    return on_singular_values(function, numbers, matrix), out


def _divided_differences(
    sizes: jax.Array, moved: jax.Array, slope: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`(f_i - f_j) / (s_i - s_j)`, `(f_i + f_j) / (s_i + s_j)` and `f_i / s_i`.

    Where the denominator is 0 or at the level of rounding, their limits: slopes of `f`.
    """
    gap = sizes[:, None] - sizes[None]
    is_tie = jnp.abs(gap) <= math.sqrt(jnp.finfo(sizes.dtype).eps) * sizes[0]
    mean_slope = (slope[:, None] + slope[None]) / 2
    quotient = (moved[:, None] - moved[None]) / jnp.where(is_tie, 1.0, gap)
    stretch = jnp.where(is_tie, mean_slope, quotient)
    sums = sizes[:, None] + sizes[None]
    quotient = (moved[:, None] + moved[None]) / jnp.where(sums > 0, sums, 1.0)
    turn = jnp.where(sums > 0, quotient, mean_slope)
    share = jnp.where(sizes > 0, moved / jnp.where(sizes > 0, sizes, 1.0), slope)
    return stretch, turn, share
