"""The capped L1 norm."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core.leafwise import Elementwise, magnitude
from jaxreg._core.penalty import Number, ratio
from jaxreg._core.pytree import positive, pytree_dataclass
from jaxreg._numerics.scalar_prox import (
    dead_until,
    flat_from,
    outside,
    shrink_until_flat,
)


@pytree_dataclass
class CappedL1(Elementwise):
    r"""The capped L1 norm, `strength * sum min(|w|, knot)`.

    Weights below the knot are thresholded as by `L1`, those above are free. Its prox is
    the global minimiser at every step and jumps at every step: it returns no size
    between `knot - strength s / 2` and `knot + strength s / 2`. Under `regularize`
    weights in this gap start at its nearer end, and a non-zero weight never starts at
    0. `MCP` and `SCAD` are similar, but without a jump at small steps. The subgradient
    is 0 at 0 and from the knot on. bfloat16 leaves are computed in float32.

    Args:
      strength: >= 0, in units of loss per unit of weight.
      knot: > 0, the size of a weight at which the penalty stops growing.

    Reference: Zhang 2010, Analysis of multi-stage convex relaxation for sparse
    regularization.

    >>> import jax.numpy as jnp, jaxreg
    >>> jaxreg.CappedL1(1.0, knot=2.0).prox(jnp.array([0.5, -2.0, 3.0]), step=1.0)
    Array([ 0., -1.,  3.], dtype=float32)
    """

    strength: Number
    knot: Number = positive()

    is_convex = False

    @property
    def slope_at_zero(self) -> Number:
        return self.strength

    def step_for(self, width: Number) -> jax.Array:
        # A dead zone wider than two knots ends at the jump.
        threshold = width * jnp.maximum(1.0, width / (2 * self.knot))
        return ratio(threshold, self.strength)

    def dead_zone(self, step: jax.Array) -> jax.Array:
        return dead_until(self.strength * step, self.knot, self.knot)

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        size = magnitude(leaf)
        return self.strength * jnp.where(size < self.knot, size, self.knot)

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        is_steep = jnp.abs(leaf) < self.knot
        return self.strength * jnp.where(is_steep, jnp.sign(leaf), 0.0)

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        return shrink_until_flat(leaf, self.strength * step, self.knot, self.knot)

    def leaf_start(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        size, threshold = jnp.abs(leaf), self.strength * step
        edge = flat_from(threshold, self.knot, self.knot)
        below = edge * (1 - 16 * jnp.finfo(leaf.dtype).eps)
        # Near 0 the gap begins at 0: non-zero weights start at its upper edge.
        is_gap_above_zero = threshold <= self.knot
        is_low = size < jnp.where(is_gap_above_zero, self.knot, below - threshold)
        low = jnp.sign(leaf) * jnp.minimum(size + threshold, below)
        return jnp.where(is_low, low, outside(edge, leaf, leaf))
