"""Matrices of bounded spectral norm."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core.constraint import Constraint
from jaxreg._core.penalty import Number
from jaxreg._core.pytree import positive, pytree_dataclass, static
from jaxreg._numerics.singular_values import decompose, on_singular_values
from jaxreg.calculus.spectral import MatrixPenalty


@pytree_dataclass
class SpectralBall(MatrixPenalty, Constraint):
    r"""No singular value above `radius` in a leaf seen as a matrix.

    The projection clips the singular values. Use it to bound how far a layer can
    stretch its inputs: a dense kernel is then Lipschitz with constant `radius`. For a
    convolution it bounds the matrix `(height * width * in, out)`, not the layer. The
    set is convex; 0 lies inside. bfloat16 leaves are computed in float32.

    Args:
      radius: > 0, in units of a singular value.
      split: the number of leading axes that make up the rows; -1 for all but the last.
      stacked: the number of axes before those, along which layers are stacked.

    Raises:
      TypeError: `split` is not an int, or `stacked` not an int >= 0.

    Reference: Gouk, Frank, Pfahringer and Cree 2021, Regularisation of neural networks
    by enforcing Lipschitz continuity (it scales the matrix; this is the projection).

    >>> import jax.numpy as jnp, jaxreg
    >>> jaxreg.SpectralBall(2.0).prox(jnp.diag(jnp.array([3.0, 0.5])), step=1.0)
    Array([[2. , 0. ],
           [0. , 0.5]], dtype=float32)
    """

    radius: Number = positive()
    split: int = static(default=-1)
    stacked: int = static(default=0)

    def leaf_projection(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        del step
        return on_singular_values(_clipped, self.radius, leaf)

    def leaf_stationarity(self, leaf: jax.Array, grad: jax.Array) -> jax.Array:
        left, sizes, right = decompose(leaf)
        # Normals are U W V^T over the singular values at the radius, with W symmetric
        # and positive semidefinite.
        slack = 16 * jnp.finfo(leaf.dtype).eps * max(leaf.shape) ** 0.5
        is_tight = sizes >= (1 - slack) * self.radius
        left, right = left * is_tight[None], right * is_tight[:, None]
        inner = jnp.linalg.multi_dot([left.T, -grad, right.T], precision="highest")
        levels, axes = jnp.linalg.eigh((inner + inner.T) / 2)
        push = jnp.matmul(
            axes * jnp.maximum(levels, 0.0)[None], axes.T, precision="highest"
        )
        normal = jnp.linalg.multi_dot([left, push, right], precision="highest")
        outside = jnp.abs(leaf - self.leaf_projection(leaf, grad))
        return jnp.abs(grad + normal) + outside


def _clipped(radius: Number, sizes: jax.Array) -> jax.Array:
    return jnp.minimum(sizes, radius)
