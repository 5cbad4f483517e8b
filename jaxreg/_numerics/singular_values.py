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


def on_singular_values(function: Map, numbers: Tree, matrix: jax.Array) -> jax.Array:
    """`U diag(function(numbers, sigma)) V^T`, by one singular value decomposition.

    `function` maps each singular value separately; it may use their order. If it
    changes none of them, the matrix is returned unchanged.
    """
    if matrix.shape[0] < matrix.shape[1]:
        return _on_tall(function, numbers, matrix.T).T
    return _on_tall(function, numbers, matrix)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _on_tall(function: Map, numbers: Tree, matrix: jax.Array) -> jax.Array:
    left, sizes, right = decompose(matrix)
    moved = function(numbers, sizes).astype(sizes.dtype)
    is_unchanged = jnp.all(moved == sizes)
    return jnp.where(is_unchanged, matrix, product(left, moved, right))


@_on_tall.defjvp
def _on_tall_jvp(
    function: Map, primals: tuple[Tree, jax.Array], tangents: tuple[Tree, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """The formula of Daleckii and Krein for `matrix V g(t) V^T`, `g(t) = f(s) / s`.

    `t = s^2` are the eigenvalues of `matrix^T matrix`, in which singular values of zero
    are eigenvalues as any other. All is in units of the largest singular value.

    What is written here has the right derivative in turn, as reverse mode needs it,
    which does not keep the rule. Vectors of equal eigenvalues have no derivative, and
    `_frame` keeps them: `tied` is 0, and its derivative is what they leave out.
    """
    (numbers, matrix), (number_moves, move) = primals, tangents
    dot = functools.partial(jnp.matmul, precision="highest")
    sizes, axes = _frame(matrix)
    scale = jax.lax.stop_gradient(_positive(sizes[0]))
    images = dot(matrix / scale, axes)
    tied = jnp.where(_are_tied(sizes) & ~jnp.eye(sizes.size, dtype=bool), 1.0, 0.0)
    tied = tied * dot(images.T, images)
    tied = tied - jax.lax.stop_gradient(tied)
    (share, slope, bend), (share_move, slope_move, _) = jax.jvp(
        lambda numbers: _divided_differences(function, numbers, sizes, scale),
        (numbers,),
        (number_moves,),
    )
    turned = dot(move, axes)
    inner = dot(images.T, turned)
    inner = inner + inner.T
    core = slope * inner + bend * dot(tied, inner) + dot(inner, tied) * bend.T
    core += scale * (jnp.diag(share_move) + slope_move * tied)
    out = turned * share[None] + dot(turned, slope * tied) + dot(images, core)
    return _on_tall(function, numbers, matrix), dot(out, axes.T)


def _divided_differences(
    function: Map, numbers: Tree, sizes: jax.Array, scale: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`g(t_i)`, `g[t_i, t_j]` and `g[t_i, t_i, t_j]`.

    Where the denominator is 0 or at the level of rounding, their limits: derivatives of
    `g`. Those at 0 are 0, as they are multiplied by singular values of 0.
    """

    def moved(sizes: jax.Array) -> jax.Array:
        return function(numbers, sizes).astype(sizes.dtype)

    def slopes(sizes: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.jvp(moved, (sizes,), (jnp.ones_like(sizes),))

    (moved_sizes, slope), (_, curvature) = jax.jvp(
        slopes, (sizes,), (jnp.ones_like(sizes),)
    )
    is_positive, size = sizes > 0, _positive(sizes) / scale
    share = jnp.where(is_positive, moved_sizes / scale / size, slope)
    first = jnp.where(is_positive, (slope - share) / (2 * size**2), 0.0)
    second = (scale * curvature / (2 * size) - 3 * first) / (2 * size**2)
    second = jnp.where(is_positive, second, 0.0)
    are_tied, gap = _are_tied(sizes), _gaps(sizes / scale)
    gap = jnp.where(are_tied, 1.0, gap)
    mean = (first[:, None] + first[None]) / 2
    divided = jnp.where(are_tied, mean, (share[:, None] - share[None]) / gap)
    twice = jnp.where(are_tied, second[:, None] / 2, (first[:, None] - divided) / gap)
    return share, divided, twice


@jax.custom_jvp
def _frame(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The singular values and `V`."""
    _, sizes, right = decompose(matrix)
    return sizes, right.T


@_frame.defjvp
def _frame_jvp(
    primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]:
    """The tangents; among vectors of equal singular values they are 0."""
    (matrix,), (move,) = primals, tangents
    dot = functools.partial(jnp.matmul, precision="highest")
    sizes, axes = _frame(matrix)
    scale = jax.lax.stop_gradient(_positive(sizes[0]))
    inner = dot(dot(matrix / scale, axes).T, dot(move / scale, axes))
    size_moves = jnp.where(sizes > 0, jnp.diag(inner) / _positive(sizes / scale), 0.0)
    are_tied = _are_tied(sizes)
    gaps = jnp.where(are_tied, 1.0, _gaps(sizes / scale).T)
    turn = jnp.where(are_tied, 0.0, (inner + inner.T) / gaps)
    return (sizes, axes), (scale * size_moves, dot(axes, turn))


def _are_tied(sizes: jax.Array) -> jax.Array:
    """True for pairs that are equal up to the root of rounding."""
    gap = jnp.abs(sizes[:, None] - sizes[None])
    return gap <= math.sqrt(jnp.finfo(sizes.dtype).eps) * sizes[0]


def _gaps(sizes: jax.Array) -> jax.Array:
    """`s_i^2 - s_j^2`, without their cancellation."""
    return (sizes[:, None] - sizes[None]) * (sizes[:, None] + sizes[None])


def _positive(sizes: jax.Array) -> jax.Array:
    return jnp.where(sizes > 0, sizes, 1.0)
