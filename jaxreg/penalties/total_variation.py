"""Total variation."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core.leafwise import magnitude
from jaxreg._core.penalty import Facts, Number, exact_sum, ratio
from jaxreg._core.pytree import pytree_dataclass, static
from jaxreg._numerics.taut_string import total_variation_prox
from jaxreg.penalties._linewise import Linewise, check_same_axis


@pytree_dataclass
class TotalVariation(Linewise):
    r"""Total variation, `strength * sum |w_{i+1} - w_i|` along an axis.

    Its prox makes lines piecewise constant: neighbours become exactly equal. Use it for
    weights with an order, such as time lags, positions or frequencies; add `L1` for
    zeros as well (`FusedLasso`). The prox is exact for steps that differ from entry to
    entry; in float32 it is accurate to 1e-7 of the largest entry and of `strength s`.
    The subgradient of equal neighbours is 0. bfloat16 leaves are computed in float32.

    The prox is sequential, which is slow on GPUs. Its time is linear in the length of
    the lines, with a factor of some 200 for long smooth ones (see BUILD_NOTES).

    Args:
      strength: >= 0, in units of loss per unit of weight.
      axis: the axis along which neighbours are compared; other axes are independent.

    Raises:
      TypeError: `axis` is not an int.

    Reference: Rudin, Osher and Fatemi 1992, Nonlinear total variation based noise
    removal algorithms; Condat 2013, A direct algorithm for 1-D total variation
    denoising.

    >>> import jax.numpy as jnp, jaxreg
    >>> lags = jaxreg.TotalVariation(0.75, axis=0)
    >>> lags.prox(jnp.array([1.0, 2.0, 0.0, 5.0, 5.0]), step=1.0)
    Array([1.25 , 1.25 , 1.25 , 4.625, 4.625], dtype=float32)
    """

    strength: Number
    axis: int = static()

    facts = Facts(varying_step=True, is_homogeneous=True, stationarity_kind="residual")

    def step_for(self, width: Number) -> jax.Array:
        return ratio(width, self.strength)

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        rises = magnitude(jnp.diff(leaf, axis=self.axis))
        return self.strength * jnp.sum(rises, axis=self.axis, keepdims=True)

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        lines = jnp.moveaxis(leaf, self.axis, -1)
        signs = jnp.sign(jnp.diff(lines, axis=-1))
        edge = [(0, 0)] * (leaf.ndim - 1)
        slope = jnp.pad(signs, [*edge, (1, 0)]) - jnp.pad(signs, [*edge, (0, 1)])
        return self.strength * jnp.moveaxis(slope, -1, self.axis)

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        threshold = jnp.broadcast_to(self.strength * step, leaf.shape)
        lines = jnp.moveaxis(leaf, self.axis, -1)
        flat, _ = total_variation_prox(lines, jnp.moveaxis(threshold, self.axis, -1))
        return jnp.moveaxis(flat, -1, self.axis)


@exact_sum(TotalVariation, TotalVariation)
def _sum(first: TotalVariation, second: TotalVariation) -> TotalVariation:
    check_same_axis(first, second)
    return TotalVariation(first.strength + second.strength, first.axis)
