"""The elastic net, and the sums of L1 and L2."""

from __future__ import annotations

import jax

from jaxreg._core.leafwise import Elementwise
from jaxreg._core.penalty import Number, Penalty, exact_sum, ratio, sum_or_none
from jaxreg._core.pytree import pytree_dataclass
from jaxreg._core.ranges import UNIT_INTERVAL, check_number
from jaxreg.calculus.elastic import elastic
from jaxreg.penalties.l1 import L1, soft_threshold
from jaxreg.penalties.l2 import L2


@pytree_dataclass
class ElasticNet(Elementwise):
    r"""The elastic net, `l1 * sum |w| + l2 * sum w^2`; the same object as `L1 + L2`.

    Its prox thresholds and then shrinks, `soft(v, l1 s) / (1 + 2 l2 s)`: exact zeros,
    and equal weights for equal features. Keras' `l1_l2(a, b)` is `ElasticNet(a, b)`.
    The subgradient at 0 is 0. bfloat16 leaves are computed in float32.

    Args:
      l1: >= 0, in units of loss per unit of weight.
      l2: >= 0, in units of loss per squared unit of weight.

    Reference: Zou and Hastie 2005, Regularization and variable selection via the
    elastic net, eq. 3 (the "naive" form); Parikh and Boyd 2014, section 6.5.3.

    >>> import jax.numpy as jnp, jaxreg
    >>> jaxreg.ElasticNet(l1=0.5, l2=0.5).prox(jnp.array([2.5, -0.3]), step=1.0)
    Array([1., 0.], dtype=float32)
    """

    l1: Number
    l2: Number

    @property
    def slope_at_zero(self) -> Number:
        return self.l1

    @classmethod
    def from_sklearn(cls, alpha: Number, l1_ratio: Number) -> ElasticNet:
        """The penalty of `sklearn.linear_model.ElasticNet(alpha, l1_ratio)`.

        It matches the loss of scikit-learn, `||y - Xw||^2 / (2 n)`.

        >>> import jaxreg
        >>> jaxreg.ElasticNet.from_sklearn(alpha=0.5, l1_ratio=0.5)
        ElasticNet(l1=0.25, l2=0.125)
        """
        name = "ElasticNet.from_sklearn"
        check_number(f"{name}: alpha", alpha, grids=True)
        check_number(f"{name}: l1_ratio", l1_ratio, UNIT_INTERVAL, grids=True)
        return cls(alpha * l1_ratio, alpha * (1 - l1_ratio) / 2)

    def step_for(self, width: Number) -> jax.Array:
        return ratio(width, self.l1 + 2 * self.l2 * width)

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        return L1(self.l1).leaf_values(leaf) + L2(self.l2).leaf_values(leaf)

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        return L1(self.l1).leaf_subgradient(leaf) + L2(self.l2).leaf_subgradient(leaf)

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        return soft_threshold(leaf, self.l1 * step) / (1 + 2 * self.l2 * step)


@exact_sum(L1, L2)
def _l1_l2(first: L1, second: L2) -> ElasticNet:
    return ElasticNet(first.strength, second.strength)


@exact_sum(ElasticNet, L1)
def _with_l1(first: ElasticNet, second: L1) -> ElasticNet:
    return ElasticNet(first.l1 + second.strength, first.l2)


@exact_sum(ElasticNet, L2)
def _with_l2(first: ElasticNet, second: L2) -> ElasticNet:
    return ElasticNet(first.l1, first.l2 + second.strength)


@exact_sum(ElasticNet, ElasticNet)
def _sum(first: ElasticNet, second: ElasticNet) -> ElasticNet:
    return ElasticNet(first.l1 + second.l1, first.l2 + second.l2)


@exact_sum(ElasticNet, Penalty)
def _with_penalty(first: ElasticNet, second: Penalty) -> Penalty | None:
    both = sum_or_none(L1(first.l1), second)
    return None if both is None else elastic(both, first.l2)
