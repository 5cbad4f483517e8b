"""The minimax concave penalty."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core.leafwise import Elementwise, magnitude
from jaxreg._core.penalty import Number, ratio
from jaxreg._core.pytree import positive, pytree_dataclass
from jaxreg._numerics.scalar_prox import dead_until, shrink_until_flat


@pytree_dataclass
class MCP(Elementwise):
    r"""MCP: the slope falls from `strength` at 0 to 0 at `knot`, and stays 0.

    It is `strength (|w| - w^2 / (2 knot))` up to the knot, `strength knot / 2` beyond.
    Small weights are thresholded, weights beyond the knot are not shrunk at all: sparse
    without bias. The textbook's MCP(lambda, gamma) is
    `MCP(lambda, knot=gamma * lambda)`; here the penalty is linear in `strength`, and
    the knot is the size of a weight. The prox is the global minimiser at every step;
    from `strength s >= knot` on it is a hard threshold at `sqrt(knot strength s)`.
    Under `regularize` the width is capped at half the knot, where it does not jump. The
    subgradient at 0 is 0. bfloat16 leaves are computed in float32.

    Args:
      strength: >= 0, in units of loss per unit of weight.
      knot: > 0, the size from which weights are not shrunk.

    Reference: Zhang 2010, Nearly unbiased variable selection under minimax concave
    penalty.

    >>> import jax.numpy as jnp, jaxreg
    >>> jaxreg.MCP(0.5, knot=2.0).prox(jnp.array([0.5, -1.25, 3.0]), step=1.0)
    Array([ 0., -1.,  3.], dtype=float32)
    """

    strength: Number
    knot: Number = positive()

    is_convex = False

    @property
    def slope_at_zero(self) -> Number:
        return self.strength

    def step_for(self, width: Number) -> jax.Array:
        return ratio(jnp.minimum(width, self.knot / 2), self.strength)

    def dead_zone(self, step: jax.Array) -> jax.Array:
        return dead_until(self.strength * step, 0.0, self.knot)

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        size = jnp.minimum(magnitude(leaf), self.knot)
        return self.strength * (size - size**2 / (2 * self.knot))

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        share = jnp.maximum(1 - jnp.abs(leaf) / self.knot, 0.0)
        return self.strength * jnp.sign(leaf) * share

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        return shrink_until_flat(leaf, self.strength * step, 0.0, self.knot)
