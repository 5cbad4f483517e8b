"""Matrices with orthonormal columns, or rows."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core.constraint import Constraint
from jaxreg._core.penalty import Facts
from jaxreg._core.pytree import pytree_dataclass, static
from jaxreg._numerics.singular_values import on_singular_values
from jaxreg.calculus.spectral import MatrixPenalty


@pytree_dataclass
class Orthogonal(MatrixPenalty, Constraint):
    r"""Orthonormal columns of a leaf seen as a matrix, or rows if those are fewer.

    The projection is the polar factor, `U V^T` for `U diag(sigma) V^T`: every singular
    value becomes 1. Use it for layers that preserve lengths. The set, a Stiefel
    manifold, is not convex. A leaf without full rank has many nearest points, one of
    which is returned: always the same, and orthonormal even for a leaf of zeros.
    Under `regularize` a fresh kernel becomes orthonormal at the first update. bfloat16
    leaves are computed in float32 and then rounded.

    Args:
      split: the number of leading axes that make up the rows; -1 for all but the last.
      stacked: the number of axes before those, along which layers are stacked.

    Raises:
      TypeError: `split` is not an int, or `stacked` not an int >= 0.

    Reference: Absil, Mahony and Sepulchre 2008, Optimization algorithms on matrix
    manifolds, sections 3.3.2 and 3.6.1 (tangent and normal space).

    >>> import jax.numpy as jnp, jaxreg
    >>> jaxreg.Orthogonal().prox(jnp.diag(jnp.array([3.0, -0.5])), step=1.0)
    Array([[ 1.,  0.],
           [ 0., -1.]], dtype=float32)
    """

    split: int = static(default=-1)
    stacked: int = static(default=0)

    facts = Facts(is_convex=False, stationarity_kind="normal cone")

    def leaf_projection(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        del step
        return on_singular_values(_ones, None, leaf)

    def leaf_stationarity(self, leaf: jax.Array, grad: jax.Array) -> jax.Array:
        nearest = self.leaf_projection(leaf, grad)
        is_tall = leaf.shape[0] >= leaf.shape[1]
        frame, pull = (nearest, grad) if is_tall else (nearest.T, grad.T)
        inner = jnp.matmul(frame.T, pull, precision="highest")
        # A normal is the frame times a symmetric matrix.
        normal = jnp.matmul(frame, (inner + inner.T) / 2, precision="highest")
        rest = jnp.abs(pull - normal)
        return (rest if is_tall else rest.T) + jnp.abs(leaf - nearest)


def _ones(numbers: None, sizes: jax.Array) -> jax.Array:
    del numbers
    return jnp.ones_like(sizes)
