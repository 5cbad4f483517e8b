"""The L1 norm."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core.leafwise import Elementwise, magnitude
from jaxreg._core.penalty import Facts, Number, exact_sum, ratio
from jaxreg._core.pytree import pytree_dataclass
from jaxreg._core.ranges import check_number


@pytree_dataclass
class L1(Elementwise):
    r"""The lasso penalty, `strength * sum |w|`.

    Its prox is soft thresholding, `v - clip(v, -strength s, strength s)`: weights below
    the threshold become exactly 0, the others move towards 0 by the threshold. Use it
    for sparse weights. Keras' `l1(s)` is `L1(s)`; scikit-learn's `Lasso(alpha)` is
    `L1(alpha)` with the loss `||y - Xw||^2 / (2 n)`. The subgradient at 0 is 0.
    bfloat16 leaves are computed in float32 and rounded once.

    Args:
      strength: >= 0, in units of loss per unit of weight.

    Reference: Tibshirani 1996, Regression shrinkage and selection via the lasso;
    Parikh and Boyd 2014, Proximal algorithms, section 6.5.2.

    >>> import jax.numpy as jnp, jaxreg
    >>> jaxreg.L1(0.5).prox(jnp.array([2.0, -0.3, 0.0]), step=1.0)
    Array([1.5, 0. , 0. ], dtype=float32)
    """

    strength: Number

    @classmethod
    def from_sklearn(cls, alpha: Number) -> L1:
        """The penalty of `sklearn.linear_model.Lasso(alpha)`.

        It matches the loss of scikit-learn, `||y - Xw||^2 / (2 n)`.

        >>> import jaxreg
        >>> jaxreg.L1.from_sklearn(alpha=0.5)
        L1(strength=0.5)
        """
        check_number("L1.from_sklearn: alpha", alpha, grids=True)
        return cls(alpha)

    @property
    def facts(self) -> Facts:
        return super().facts.but(is_homogeneous=True)

    @property
    def slope_at_zero(self) -> Number:
        return self.strength

    def step_for(self, width: Number) -> jax.Array:
        return ratio(width, self.strength)

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        return self.strength * magnitude(leaf)

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        return self.strength * jnp.sign(leaf)

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        return soft_threshold(leaf, self.strength * step)


def soft_threshold(leaf: jax.Array, threshold: jax.Array) -> jax.Array:
    """`sign(v) max(|v| - threshold, 0)`, without -0.0, and exact for infinities."""
    bound = jnp.asarray(threshold, leaf.dtype)
    # Not jnp.clip, whose derivative at a tie is 0 for all three arguments.
    return leaf - jnp.minimum(jnp.maximum(leaf, -bound), bound)


@exact_sum(L1, L1)
def _sum(first: L1, second: L1) -> L1:
    return L1(first.strength + second.strength)
