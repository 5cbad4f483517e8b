"""The squared L2 norm."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core.leafwise import Elementwise
from jaxreg._core.penalty import Number, Penalty, exact_sum, ratio
from jaxreg._core.pytree import pytree_dataclass
from jaxreg._core.ranges import check_number, check_positive
from jaxreg.calculus.elastic import elastic


@pytree_dataclass
class L2(Elementwise):
    r"""The ridge penalty, `strength * sum w^2`.

    Its gradient is `2 strength w`, its prox `v / (1 + 2 strength s)`: it shrinks every
    weight in proportion and leaves no zeros. Mind the factor: Keras' `l2(s)` is
    `L2(s)`, but `weight_decay=d` of Optax and PyTorch is `L2(d / 2)`, and
    scikit-learn's `Ridge(alpha)` is `L2(alpha / n)` with the loss `||y - Xw||^2 / n`.
    bfloat16 leaves are computed in float32 and rounded once.

    Args:
      strength: >= 0, in units of loss per squared unit of weight.

    Reference: Hoerl and Kennard 1970, Ridge regression, eq. 2.1; Parikh and Boyd 2014,
    Proximal algorithms, section 6.1.1.

    >>> import jax.numpy as jnp, jaxreg
    >>> jaxreg.L2(0.5).prox(jnp.array([2.0, -1.0, 0.0]), step=1.0)
    Array([ 1. , -0.5,  0. ], dtype=float32)
    """

    strength: Number

    slope_at_zero = 0.0

    @classmethod
    def from_sklearn(cls, alpha: Number, samples: int) -> L2:
        """The penalty of `sklearn.linear_model.Ridge(alpha)` on the mean loss.

        scikit-learn adds `alpha ||w||^2` to the sum `||y - Xw||^2`; this matches
        `||y - Xw||^2 / (2 n)`, the loss of its Lasso, over `n = samples` rows.

        >>> import jaxreg
        >>> jaxreg.L2.from_sklearn(alpha=1.0, samples=50)
        L2(strength=0.01)
        """
        check_number("L2.from_sklearn: alpha", alpha, grids=True)
        check_positive("L2.from_sklearn: samples", samples)
        return cls(alpha / (2 * samples))

    def step_for(self, width: Number) -> jax.Array:
        # Without a kink the width does not matter: this step halves every entry.
        return ratio(jnp.ones_like(jnp.asarray(width)), 2 * self.strength)

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        return self.strength * leaf * leaf

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        return 2 * self.strength * leaf

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        return leaf / (1 + 2 * self.strength * step)


@exact_sum(L2, L2)
def _sum(first: L2, second: L2) -> L2:
    return L2(first.strength + second.strength)


@exact_sum(L2, Penalty)
def _with_penalty(first: L2, second: Penalty) -> Penalty | None:
    return elastic(second, first.strength) if second.facts.has_prox else None
