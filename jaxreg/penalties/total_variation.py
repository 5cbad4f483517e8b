"""Total variation."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from jaxreg._core.leafwise import magnitude
from jaxreg._core.penalty import Facts, Number, exact_sum, ratio
from jaxreg._core.pytree import pytree_dataclass, static
from jaxreg._numerics.planar_variation import planar_variation_prox
from jaxreg._numerics.taut_string import total_variation_prox
from jaxreg.penalties._linewise import Linewise, check_same_axis


@pytree_dataclass
class TotalVariation(Linewise):
    r"""Total variation, `strength * sum |w_{i+1} - w_i|` along an axis, or along two.

    Its prox makes lines piecewise constant: neighbours become exactly equal. Use it for
    weights with an order, such as time lags, positions or frequencies; add `L1` for
    zeros as well (`FusedLasso`). The prox is exact for steps that differ from entry to
    entry; in float32 it is accurate to 1e-7 of the largest entry and of `strength s`.
    The subgradient of equal neighbours is 0. bfloat16 leaves are computed in float32.

    Along a pair of axes it adds the differences along both (anisotropic, in two
    dimensions), for filters and images: regions become constant. That prox alternates
    between the two exact ones until its moves are some tens of units of rounding. It is
    accurate to `prox_tolerance` of the largest distance from the mean of a plane, and
    takes one step per plane. Neighbours become equal, exactly along the second axis and
    up to the tolerance along the first.

    The prox is sequential, which is slow on GPUs. Its time is linear in the length of
    the lines, with a factor of some 200 for long smooth ones (see BUILD_NOTES).

    Args:
      strength: >= 0, in units of loss per unit of weight.
      axis: the axis along which neighbours are compared, or a pair of axes; other axes
        are independent.

    Raises:
      TypeError: `axis` is neither an int nor a pair of ints.

    Reference: Rudin, Osher and Fatemi 1992, Nonlinear total variation based noise
    removal algorithms; Condat 2013, A direct algorithm for 1-D total variation
    denoising; Barbero and Sra 2018, Modular proximal optimization for multidimensional
    total-variation regularization.

    >>> import jax.numpy as jnp, jaxreg
    >>> lags = jaxreg.TotalVariation(0.75, axis=0)
    >>> lags.prox(jnp.array([1.0, 2.0, 0.0, 5.0, 5.0]), step=1.0)
    Array([1.25 , 1.25 , 1.25 , 4.625, 4.625], dtype=float32)
    """

    strength: Number
    axis: int | tuple[int, int] = static()

    takes_planes = True

    @property
    def facts(self) -> Facts:
        is_plane = isinstance(self.axis, tuple)
        return Facts(
            varying_step=not is_plane,
            prox_tolerance=1e-4 if is_plane else 0.0,
            is_homogeneous=True,
            stationarity_kind="residual",
        )

    def step_for(self, width: Number) -> jax.Array:
        return ratio(width, self.strength)

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        axes = self.layout.axes
        rises = [
            jnp.sum(magnitude(jnp.diff(leaf, axis=axis)), axis=axes, keepdims=True)
            for axis in axes
        ]
        return self.strength * functools.reduce(jnp.add, rises)

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        slopes = [_slope(leaf, axis) for axis in self.layout.axes]
        return self.strength * functools.reduce(jnp.add, slopes)

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        threshold = jnp.broadcast_to(self.strength * step, leaf.shape)
        # Lines of one entry have no differences.
        axes = [axis for axis in self.layout.axes if leaf.shape[axis] > 1]
        if not axes:
            return leaf
        last = range(-len(axes), 0)
        lines, thresholds = (jnp.moveaxis(x, axes, last) for x in (leaf, threshold))
        if len(axes) == 1:
            flat = total_variation_prox(lines, thresholds)[0]
        else:
            planes = lines.reshape(-1, *lines.shape[-2:])
            per_plane = thresholds.reshape(planes.shape)[:, :1, :1].astype(leaf.dtype)
            flat = planar_variation_prox(planes, per_plane).reshape(lines.shape)
        return jnp.moveaxis(flat, last, axes)


def _slope(leaf: jax.Array, axis: int) -> jax.Array:
    """The subgradient of the sum of the sizes of differences along an axis."""
    signs = jnp.sign(jnp.diff(jnp.moveaxis(leaf, axis, -1), axis=-1))
    edge = [(0, 0)] * (leaf.ndim - 1)
    slope = jnp.pad(signs, [*edge, (1, 0)]) - jnp.pad(signs, [*edge, (0, 1)])
    return jnp.moveaxis(slope, -1, axis)


@exact_sum(TotalVariation, TotalVariation)
def _sum(first: TotalVariation, second: TotalVariation) -> TotalVariation:
    check_same_axis(first, second)
    return TotalVariation(first.strength + second.strength, first.axis)
