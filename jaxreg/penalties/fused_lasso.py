"""The fused lasso."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core.penalty import Facts, Number, exact_sum, ratio
from jaxreg._core.pytree import pytree_dataclass, static
from jaxreg.penalties._linewise import Linewise, check_same_axis
from jaxreg.penalties.l1 import L1, soft_threshold
from jaxreg.penalties.total_variation import TotalVariation


@pytree_dataclass
class FusedLasso(Linewise):
    r"""The fused lasso, `l1 * sum |w| + total_variation * sum |w_{i+1} - w_i|`.

    The same object as `L1 + TotalVariation`. Its prox is the soft threshold of the prox
    of total variation: lines become piecewise constant, and exactly 0 where they are
    small. The composition is exact only if the step is constant along `axis`; steps
    that vary along it raise. The subgradient is 0 at 0 and at equal neighbours.
    bfloat16 leaves are computed in float32.

    Args:
      l1: >= 0, in units of loss per unit of weight.
      total_variation: >= 0, in the same units.
      axis: the axis along which neighbours are compared, or a pair of axes, as for
        `TotalVariation`; other axes are independent.

    Raises:
      TypeError: `axis` is neither an int nor a pair of ints.

    Reference: Tibshirani et al. 2005, Sparsity and smoothness via the fused lasso;
    Friedman et al. 2007, Pathwise coordinate optimization, section 4.

    >>> import jax.numpy as jnp, jaxreg
    >>> lags = jaxreg.FusedLasso(l1=0.5, total_variation=0.5, axis=0)
    >>> lags.prox(jnp.array([0.1, -0.2, 0.1, 4.75, 5.25]), step=1.0)
    Array([0.  , 0.  , 0.  , 4.25, 4.25], dtype=float32)
    """

    l1: Number
    total_variation: Number
    axis: int | tuple[int, int] = static()

    takes_planes = True

    @property
    def facts(self) -> Facts:
        return self._variation.facts.but(zeros="entries", varying_step=False)

    @property
    def _lasso(self) -> L1:
        return L1(self.l1)

    @property
    def _variation(self) -> TotalVariation:
        return TotalVariation(self.total_variation, self.axis)

    def step_for(self, width: Number) -> jax.Array:
        return ratio(width, jnp.maximum(self.l1, self.total_variation))

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        entries = jnp.sum(self._lasso.leaf_values(leaf), axis=self.axis, keepdims=True)
        return entries + self._variation.leaf_values(leaf)

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        slope = self._variation.leaf_subgradient(leaf)
        return slope + self._lasso.leaf_subgradient(leaf)

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        return soft_threshold(self._variation.leaf_prox(leaf, step), self.l1 * step)

    def leaf_nearest(
        self, latent: jax.Array, leaf: jax.Array, step: jax.Array
    ) -> jax.Array:
        # The prox is a composition: its preimages are taken in reverse order.
        # A NaN would spread along its line.
        latent = jnp.where(latent == latent, latent, leaf)
        flat = self._variation.leaf_prox(latent, step)
        flat = self._lasso.leaf_nearest(flat, leaf, step)
        return self._variation.leaf_nearest(latent, flat, step)


@exact_sum(TotalVariation, L1)
def _both(first: TotalVariation, second: L1) -> FusedLasso:
    return FusedLasso(second.strength, first.strength, first.axis)


@exact_sum(FusedLasso, L1)
def _with_l1(first: FusedLasso, second: L1) -> FusedLasso:
    return FusedLasso(first.l1 + second.strength, first.total_variation, first.axis)


@exact_sum(FusedLasso, TotalVariation)
def _with_variation(first: FusedLasso, second: TotalVariation) -> FusedLasso:
    check_same_axis(first, second)
    return FusedLasso(first.l1, first.total_variation + second.strength, first.axis)


@exact_sum(FusedLasso, FusedLasso)
def _sum(first: FusedLasso, second: FusedLasso) -> FusedLasso:
    check_same_axis(first, second)
    variation = first.total_variation + second.total_variation
    return FusedLasso(first.l1 + second.l1, variation, first.axis)
