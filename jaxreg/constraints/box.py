"""Bounds on entries."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core.constraint import Constraint
from jaxreg._core.layout import Entries, Layout, Shape
from jaxreg._core.messages import shown
from jaxreg._core.penalty import Facts, Number
from jaxreg._core.pytree import pytree_dataclass, signed
from jaxreg._core.ranges import is_known
from jaxreg.calculus.lift import Fitted, broadcasts


@pytree_dataclass
class Box(Constraint):
    """Entries between two bounds, `lower <= w <= upper`: the projection clips.

    Use it for weights that must fit the range of a device, or for WGAN critics. A bound
    may be infinite, and an array gives each entry its own. Zero stays zero if it lies
    between. bfloat16 entries at a bound equal the rounded bound. Under `regularize`
    entries out of bounds are clipped at the first update.

    Args:
      lower: a number, or an array that broadcasts against the leaf, in units of weight.
      upper: like `lower`, and nowhere below it.

    Raises:
      ValueError: a lower bound lies above its upper bound.

    Reference: Parikh and Boyd 2014, Proximal algorithms, section 6.2.4.

    >>> import jax.numpy as jnp, jaxreg
    >>> jaxreg.Box(-1.0, 0.5).prox(jnp.array([2.0, -0.3, -4.0]), step=1.0)
    Array([ 0.5, -0.3, -1. ], dtype=float32)
    """

    lower: Number = signed()
    upper: Number = signed()

    facts = Facts(is_separable=True, varying_step=True, stationarity_kind="residual")

    def __post_init__(self) -> None:
        if is_known(jnp.greater, self.lower, self.upper):
            raise ValueError(f"{shown(self)}; allowed: lower <= upper everywhere")

    @property
    def layout(self) -> Layout:
        return Fitted(Entries(), self._misfit)

    def _misfit(self, shape: Shape) -> str | None:
        for bound in map(jnp.shape, (self.lower, self.upper)):
            if not broadcasts(bound, shape):
                return f"does not match a bound of shape {bound}; give one number"
        return None

    def leaf_projection(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        del step
        bounds = (jnp.asarray(bound, leaf.dtype) for bound in (self.lower, self.upper))
        return jnp.clip(leaf, *bounds)
