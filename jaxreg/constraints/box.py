"""Bounds on entries."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxreg._core.checks import is_known
from jaxreg._core.constraint import Constraint
from jaxreg._core.leafwise import longest
from jaxreg._core.pytree import pytree_dataclass, signed


@pytree_dataclass
class Box(Constraint):
    """Entries between two bounds, `lower <= w <= upper`: the projection clips.

    Use it for weights that a device can hold, or for WGAN critics. A bound may be
    infinite, and an array gives each entry its own. Zero stays zero if it lies between.
    bfloat16 entries at a bound are the bound rounded. Under `regularize` entries out of
    bounds are clipped at the first update.

    Args:
      lower: a number, or an array that broadcasts against the leaf, in units of weight.
      upper: as `lower`, and nowhere below it.

    Raises:
      ValueError: a lower bound lies above its upper bound.

    Reference: Parikh and Boyd 2014, Proximal algorithms, section 6.2.4.

    >>> import jax.numpy as jnp, jaxreg
    >>> jaxreg.Box(-1.0, 0.5).prox(jnp.array([2.0, -0.3, -4.0]), step=1.0)
    Array([ 0.5, -0.3, -1. ], dtype=float32)
    """

    lower: Any = signed()
    upper: Any = signed()

    varying_step = True
    is_separable = True
    stationarity_kind = "residual"

    def __post_init__(self) -> None:
        if is_known(jnp.greater, self.lower, self.upper):
            raise ValueError(f"{self!r}; allowed: lower <= upper everywhere")

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        for bound in map(jnp.shape, (self.lower, self.upper)):
            pairs = zip(reversed(bound), reversed(shape), strict=False)
            if len(bound) > len(shape) or any(n not in (1, size) for n, size in pairs):
                return f"does not match a bound of shape {bound}; give one number"
        return None

    def independent_axis(self, shape: tuple[int, ...]) -> int | None:
        is_scalar = jnp.ndim(self.lower) == jnp.ndim(self.upper) == 0
        return longest(range(len(shape)), shape) if is_scalar else None

    def leaf_projection(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        del step
        bounds = (jnp.asarray(bound, leaf.dtype) for bound in (self.lower, self.upper))
        return jnp.clip(leaf, *bounds)
