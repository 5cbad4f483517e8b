"""The sum of square roots."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg.leafwise import Elementwise
from jaxreg.penalties.lp import Lp, shrink_by_share
from jaxreg.penalty import Number
from jaxreg.pytree import pytree_dataclass


@pytree_dataclass
class LHalf(Elementwise):
    r"""The L1/2 penalty, `strength * sum sqrt |w|`; `Lp(strength, 0.5)` in closed form.

    Sparser than `L1`, and it shrinks large weights less. The prox is the global
    minimiser. It jumps: weights up to `1.5 (strength s)^(2/3)` become 0, and it returns
    no other weight below two thirds of that. Zero is always stationary. Under
    `regularize` weights below that start there, so that none is zeroed before it has
    moved; take `width` well below the size of the initial weights. The subgradient at 0
    is 0, near 0 it is steep. bfloat16 leaves are computed in float32.

    Args:
      strength: >= 0, in units of loss per square root of a weight.

    Reference: Xu, Chang, Xu and Zhang 2012, L1/2 regularization: a thresholding
    representation theory and a fast solver.

    >>> import jax.numpy as jnp, jaxreg
    >>> jaxreg.LHalf(4.0).prox(jnp.array([5.0, -3.7, 0.0]), step=1.0).round(3)
    Array([4., 0., 0.], dtype=float32)
    """

    strength: Number

    is_convex = False

    @property
    def slope_at_zero(self) -> Number:
        return self._power.slope_at_zero

    @property
    def _power(self) -> Lp:
        return Lp(self.strength, 0.5)

    def step_for(self, width: Number) -> jax.Array:
        return self._power.step_for(width)

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        return self._power.leaf_values(leaf)

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        return self._power.leaf_subgradient(leaf)

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        return shrink_by_share(leaf, self.strength * step, 0.5, _share)

    def leaf_start(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        return self._power.leaf_start(leaf, step)


def _share(smallest: jax.Array) -> jax.Array:
    """The larger root of `u + c / sqrt(u) = 1`; three steps of Newton for float64.

    The known root, `(2/3) (1 + cos((2/3) arccos(-(3 sqrt(3) / 2) c)))`, is the same
    number, ten times slower on a CPU.
    """
    bend = smallest * jnp.sqrt(smallest) / 2
    share = 1 - bend / (1 - bend / 2)
    for _ in range(3):
        pull = bend / jnp.sqrt(share)
        share = share - (share + pull - 1) / (1 - pull / (2 * share))
    return share
