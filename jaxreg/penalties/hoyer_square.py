"""The Hoyer-square regularizer."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core.leafwise import GradientOnly, magnitude
from jaxreg._core.penalty import Number
from jaxreg._core.pytree import pytree_dataclass


@pytree_dataclass
class HoyerSquare(GradientOnly):
    r"""The Hoyer-square measure, `strength * (sum |w|)^2 / sum w^2`, per leaf.

    It lies between `strength`, if a single entry is non-zero, and `strength` times the
    number of entries, if all are equal. Scaling the leaf does not change it, so that it
    makes weights sparse without shrinking them. Value and gradient of a zero leaf are
    0; near it the gradient grows as the reciprocal of the norm. It has no useful prox:
    chain `add_penalty_gradient(it)` before the optimizer and threshold small weights at
    the end, or chain it before `regularize` with a penalty that leaves exact zeros.
    bfloat16 leaves are computed in float32.

    Args:
      strength: >= 0, in units of loss.

    Reference: Yang, Wen and Li 2020, DeepHoyer: learning sparser neural network with
    differentiable scale-invariant sparsity measures.

    >>> import jax.numpy as jnp, jaxreg
    >>> float(jaxreg.HoyerSquare(0.5).value(jnp.array([3.0, 3.0, 0.0])))
    1.0
    """

    strength: Number

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        # The value does not depend on the scale, which can therefore be a constant: the
        # squares then neither under- nor overflow.
        largest = jax.lax.stop_gradient(jnp.max(jnp.abs(leaf)))
        scaled = leaf / jnp.where(largest > 0, largest, 1.0)
        square = jnp.sum(scaled**2)
        ratio = jnp.sum(magnitude(scaled)) ** 2 / jnp.where(square > 0, square, 1.0)
        return self.strength * ratio
