"""The Huber penalty."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core.leafwise import Elementwise
from jaxreg._core.penalty import Number, ratio
from jaxreg._core.pytree import positive, pytree_dataclass


@pytree_dataclass
class Huber(Elementwise):
    r"""The Huber penalty: `strength w^2 / 2` up to `knot`, linear beyond it.

    Beyond the knot it is `strength knot (|w| - knot / 2)`. Use it as a weight decay
    that pulls large weights no harder than those at the knot; it leaves no exact zeros.
    Its prox divides by `1 + strength s` up to `knot (1 + strength s)`, and moves larger
    weights by `strength knot s`. `knot -> inf` is `L2(strength / 2)`. The gradient at 0
    is 0. bfloat16 leaves are computed in float32.

    Args:
      strength: >= 0, in units of loss per squared unit of weight.
      knot: > 0, in units of a weight; the textbook's k or delta.

    Reference: Huber 1964, Robust estimation of a location parameter.

    >>> import jax.numpy as jnp, jaxreg
    >>> jaxreg.Huber(1.0, knot=1.0).prox(jnp.array([1.0, -5.0, 0.0]), step=1.0)
    Array([ 0.5, -4. ,  0. ], dtype=float32)
    """

    strength: Number
    knot: Number = positive()

    @property
    def slope_at_zero(self) -> Number:
        return 0.0

    def step_for(self, width: Number) -> jax.Array:
        return ratio(jnp.maximum(1.0, width / self.knot), self.strength)

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        inside = jnp.clip(leaf, -self.knot, self.knot)
        return self.strength * (inside * (leaf - inside / 2))

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        return self.strength * jnp.clip(leaf, -self.knot, self.knot)

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        shrinkage = self.strength * step
        shrunk = leaf / (1 + shrinkage)
        limit = shrinkage * self.knot
        moved = leaf - jnp.clip(leaf, -limit, limit)
        return jnp.where(jnp.abs(shrunk) <= self.knot, shrunk, moved)
