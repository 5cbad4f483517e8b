"""The number of non-zero weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core.leafwise import Elementwise
from jaxreg._core.penalty import Number, ratio
from jaxreg._core.pytree import pytree_dataclass
from jaxreg._numerics.scalar_prox import outside


@pytree_dataclass
class L0(Elementwise):
    r"""The L0 penalty, `strength` times the number of weights that are not 0.

    Its prox is hard thresholding: weights up to `sqrt(2 strength s)` become exactly 0,
    the others stay as they are. Use it if the remaining weights must not be shrunk.
    Zero is always stationary. The prox returns no non-zero weight below the threshold:
    under `regularize` such weights start at the threshold, and none is zeroed before it
    has moved, so take `width` well below the size of the initial weights. The
    subgradient is 0 everywhere. bfloat16 leaves are compared in float32.

    Args:
      strength: >= 0, in units of loss per weight.

    Reference: Blumensath and Davies 2008, Iterative thresholding for sparse
    approximations.

    >>> import jax.numpy as jnp, jaxreg
    >>> jaxreg.L0(0.5).prox(jnp.array([1.5, -0.9, 0.0]), step=1.0)
    Array([1.5, 0. , 0. ], dtype=float32)
    """

    strength: Number

    is_convex = False

    @property
    def slope_at_zero(self) -> Number:
        return jnp.where(jnp.asarray(self.strength) > 0, jnp.inf, 0.0)

    def step_for(self, width: Number) -> jax.Array:
        return ratio(width * width / 2, self.strength)

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        return self.strength * (leaf != 0)

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        return jnp.zeros_like(leaf)

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        edge = self.dead_zone(step)
        return jnp.where((jnp.abs(leaf) > edge) | (edge == 0), leaf, 0.0)

    def leaf_start(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        return outside(self.dead_zone(step), leaf, leaf)

    def dead_zone(self, step: jax.Array) -> jax.Array:
        return jnp.sqrt(2 * self.strength * step)
