"""Non-negative entries."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core.constraint import Constraint
from jaxreg._core.penalty import Facts, Penalty, exact_sum
from jaxreg._core.pytree import pytree_dataclass
from jaxreg.calculus.nonnegative import nonnegative


@pytree_dataclass
class NonNegative(Constraint):
    """Entries >= 0: the projection is `max(v, 0)`, whatever the step.

    Use it for monotone or additive models; it is Keras' `NonNeg`. Added to a penalty
    of magnitudes it gives `jaxreg.nonnegative(penalty)`. Negative entries become
    exactly 0, in bfloat16 too. Under `regularize` they are clipped at the first update.

    Reference: Parikh and Boyd 2014, Proximal algorithms, section 6.2.4.

    >>> import jax.numpy as jnp, jaxreg
    >>> jaxreg.NonNegative().prox(jnp.array([2.0, -0.3, 0.0]), step=1.0)
    Array([2., 0., 0.], dtype=float32)
    """

    facts = Facts(is_separable=True, varying_step=True, stationarity_kind="normal cone")

    def leaf_projection(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        del step
        return jnp.maximum(leaf, 0)

    def leaf_stationarity(self, leaf: jax.Array, grad: jax.Array) -> jax.Array:
        """At 0 the descent that would raise an entry; below 0 the distance is added."""
        at_zero = jnp.maximum(-grad, 0)
        return jnp.where(leaf > 0, jnp.abs(grad), at_zero) + jnp.maximum(-leaf, 0)


@exact_sum(NonNegative, Penalty)
def _with_penalty(first: NonNegative, second: Penalty) -> Penalty | None:
    del first
    return nonnegative(second) if second.facts.is_absolute else None
