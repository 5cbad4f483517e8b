"""The smoothly clipped absolute deviation."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core.leafwise import Elementwise, magnitude
from jaxreg._core.penalty import Number, ratio
from jaxreg._core.pytree import above_one, positive, pytree_dataclass
from jaxreg._numerics.scalar_prox import dead_until, shrink_until_flat


@pytree_dataclass
class SCAD(Elementwise):
    r"""SCAD: the slope is `strength` up to a knee, and falls to 0 at `knot`.

    The knee is `knot / ratio`. Small weights are thresholded as by `L1`, weights beyond
    the knot are not shrunk at all: sparse without bias. The textbook's SCAD(lambda, a)
    is `SCAD(lambda, knot=a * lambda, ratio=a)`; here the penalty is linear in
    `strength`, and knot and knee are sizes of weights. The prox is the global minimiser
    at every step; at `strength s >= knot - knee` it jumps. Under `regularize` the width
    is capped at half of `knot - knee`, where it does not jump. The subgradient at 0 is
    0. bfloat16 leaves are computed in float32.

    Args:
      strength: >= 0, in units of loss per unit of weight.
      knot: > 0, the size from which weights are not shrunk.
      ratio: > 1, the knot divided by the knee.

    Raises:
      ValueError: `ratio` is a number <= 1.

    Reference: Fan and Li 2001, Variable selection via nonconcave penalized likelihood
    and its oracle properties, eq. 2.7.

    >>> import jax.numpy as jnp, jaxreg
    >>> penalty = jaxreg.SCAD(1.0, knot=4.0, ratio=4.0)
    >>> penalty.prox(jnp.array([0.9, -1.5, 2.5, 5.0]), step=1.0)
    Array([ 0.  , -0.5 ,  1.75,  5.  ], dtype=float32)
    """

    strength: Number
    knot: Number = positive()
    ratio: Number = above_one(default=3.7)

    is_convex = False

    @property
    def slope_at_zero(self) -> Number:
        return self.strength

    @property
    def _knee(self) -> Number:
        return self.knot / self.ratio

    def step_for(self, width: Number) -> jax.Array:
        return ratio(jnp.minimum(width, (self.knot - self._knee) / 2), self.strength)

    def dead_zone(self, step: jax.Array) -> jax.Array:
        return dead_until(self.strength * step, self._knee, self.knot)

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        size = jnp.minimum(magnitude(leaf), self.knot)
        beyond = jnp.maximum(size - self._knee, 0.0)
        return self.strength * (size - beyond**2 / (2 * (self.knot - self._knee)))

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        share = (self.knot - jnp.abs(leaf)) / (self.knot - self._knee)
        return self.strength * jnp.sign(leaf) * jnp.clip(share, 0.0, 1.0)

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        return shrink_until_flat(leaf, self.strength * step, self._knee, self.knot)
