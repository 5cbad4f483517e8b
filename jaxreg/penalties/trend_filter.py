"""Trend filtering."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core.groups import is_int
from jaxreg._core.leafwise import magnitude
from jaxreg._core.messages import shown
from jaxreg._core.penalty import Facts, Number, ratio
from jaxreg._core.pytree import pytree_dataclass, static
from jaxreg._numerics.trend import adjoint, trend_prox
from jaxreg.penalties._linewise import Linewise

# By order, the relative error of the prox in float32: it is the rounding of differences
# of `order`, summed up as often along the line.
_TOLERANCES = {1: 1e-3, 2: 1e-3, 3: 1e-2}


@pytree_dataclass
class TrendFilter(Linewise):
    r"""Trend filtering, `strength * sum |(D w)_i|`, D differences of `order + 1`.

    Its prox makes lines piecewise linear (`order=1`), quadratic (2) or cubic (3) along
    an axis, with few knots. Use it for weights that follow a trend that bends; where
    they jump use `TotalVariation`, which is order 0. The prox is INEXACT: it iterates
    until its moves are some tens of units of rounding, and is accurate to
    `prox_tolerance`, relative to the largest distance of the line from a polynomial of
    degree `order`: a level or a slope costs neither time nor digits, and lines do not
    affect each other. In float32 order 3 is for lines of some hundred entries; longer
    ones lose more digits (see BUILD_NOTES). Kinks are small rather than exactly 0, and
    it makes no zeros. The step is one number along `axis`. The subgradient is 0 where
    the differences are. bfloat16 leaves are computed in float32.

    Args:
      strength: >= 0, in units of loss per unit of weight.
      order: 1, 2 or 3, the degree of the pieces.
      axis: the axis of the lines; other axes are independent.

    Raises:
      TypeError: `axis` is not an int.
      ValueError: `order` is not 1, 2 or 3.

    Reference: Kim, Koh, Boyd and Gorinevsky 2009, l1 trend filtering; Ramdas and
    Tibshirani 2016, Fast and flexible ADMM algorithms for trend filtering.

    >>> import jax.numpy as jnp, jaxreg
    >>> trend = jaxreg.TrendFilter(100.0, order=1, axis=0)
    >>> trend.prox(jnp.array([0.0, 0.0, 1.0, 3.0]), step=1.0).round(2)
    Array([-0.5,  0.5,  1.5,  2.5], dtype=float32)
    """

    strength: Number
    order: int = static()
    axis: int = static()

    @property
    def facts(self) -> Facts:
        return Facts(
            prox_tolerance=_TOLERANCES[self.order],
            is_homogeneous=True,
            stationarity_kind="residual",
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_int(self.order) or self.order not in _TOLERANCES:
            raise ValueError(
                f"TrendFilter: order is {shown(self.order)}; allowed: 1, 2 or 3. Order "
                "0 is jaxreg.TotalVariation"
            )

    def step_for(self, width: Number) -> jax.Array:
        return ratio(width, self.strength)

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        kinks = magnitude(jnp.diff(leaf, n=self._depth, axis=self.axis))
        return self.strength * jnp.sum(kinks, axis=self.axis, keepdims=True)

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        lines = jnp.moveaxis(leaf, self.axis, -1)
        if lines.shape[-1] <= self._depth:
            return jnp.zeros_like(leaf)
        signs = jnp.sign(jnp.diff(lines, n=self._depth))
        slope = adjoint(signs, self._depth)
        return self.strength * jnp.moveaxis(slope, -1, self.axis)

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        lines = jnp.moveaxis(leaf, self.axis, -1)
        if lines.shape[-1] <= self._depth:
            return leaf
        flat = lines.reshape(-1, lines.shape[-1])
        threshold = jnp.broadcast_to(self.strength * step, leaf.shape)
        threshold = jnp.moveaxis(threshold, self.axis, -1).reshape(flat.shape)[:, :1]
        out = trend_prox(flat, threshold.astype(leaf.dtype), self.order)
        return jnp.moveaxis(out.reshape(lines.shape), -1, self.axis)

    @property
    def _depth(self) -> int:
        return self.order + 1
