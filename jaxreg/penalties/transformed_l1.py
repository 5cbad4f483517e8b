"""The transformed L1 norm."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core.leafwise import Elementwise, magnitude
from jaxreg._core.penalty import Number, ratio
from jaxreg._core.pytree import positive, pytree_dataclass
from jaxreg._numerics.scalar_prox import root_of


@pytree_dataclass
class TransformedL1(Elementwise):
    r"""The transformed L1 norm, `strength * sum (scale + 1) |w| / (scale + |w|)`.

    Between `L0` (`scale -> 0`) and `L1` (`scale -> inf`): each weight costs at most
    `strength (scale + 1)`, so large weights are hardly shrunk. The prox is the global
    minimiser at every step; up to `strength s = scale^2 / (2 (scale + 1))` it is
    continuous, beyond that it jumps. Under `regularize` the width is capped at
    `scale / 4`, where it does not jump. The subgradient at 0 is 0. bfloat16 leaves are
    computed in float32.

    Args:
      strength: >= 0, in units of loss per weight.
      scale: > 0, in units of a weight; the textbook's a.

    Reference: Zhang and Xin 2018, Minimization of transformed L1 penalty: theory,
    difference of convex function algorithm, and robust application in compressed
    sensing.

    >>> import jax.numpy as jnp, jaxreg
    >>> penalty = jaxreg.TransformedL1(0.25, scale=1.0)
    >>> penalty.prox(jnp.array([1.125, -0.4, 0.0]), step=1.0).round(3)
    Array([1., 0., 0.], dtype=float32)
    """

    strength: Number
    scale: Number = positive()

    is_convex = False

    @property
    def slope_at_zero(self) -> Number:
        return self.strength * (self.scale + 1) / self.scale

    def step_for(self, width: Number) -> jax.Array:
        narrow = jnp.minimum(width, self.scale / 4)
        return ratio(narrow * (self.scale / (self.scale + 1)), self.strength)

    def dead_zone(self, step: jax.Array) -> jax.Array:
        return self._edge(self.strength * step)

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        size = magnitude(leaf)
        return self.strength * ((self.scale + 1) * (size / (self.scale + size)))

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        return self.strength * jnp.sign(leaf) * self._slope(jnp.abs(leaf))

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        threshold, size = self.strength * step, magnitude(leaf)
        is_nonzero = size > self._edge(jax.lax.stop_gradient(threshold))
        root = root_of(_larger_root, _residual, (size, threshold, self))
        shrunk = jnp.sign(leaf) * jnp.where(is_nonzero, root, 0.0)
        return jnp.where(is_nonzero, shrunk, jnp.where(threshold == 0, leaf, 0.0))

    def _slope(self, size: jax.Array) -> jax.Array:
        """The slope of one entry at strength 1, in an order that avoids overflow."""
        total = self.scale + size
        return (self.scale / total) * ((self.scale + 1) / total)

    def _edge(self, threshold: jax.Array) -> jax.Array:
        """The size up to which 0 is the minimiser."""
        scale, above = self.scale, self.scale + 1
        is_smooth = 2 * threshold <= scale * (scale / above)
        jump = jnp.sqrt(2 * above) * jnp.sqrt(threshold) - scale / 2
        return jnp.where(is_smooth, threshold * (above / scale), jump)


def _larger_root(
    size: jax.Array, threshold: jax.Array, penalty: TransformedL1
) -> jax.Array:
    """The larger root of `x + threshold slope(x) = size`."""
    scale = penalty.scale
    half = 6.75 * penalty._slope(size) * (threshold / (scale + size))
    turn = jnp.arcsin(jnp.sqrt(jnp.minimum(half, 1.0))) / 3
    root = size - 4 / 3 * (scale + size) * jnp.sin(turn) ** 2
    return jnp.maximum(root, 0.0)


def _residual(
    root: jax.Array, size: jax.Array, threshold: jax.Array, penalty: TransformedL1
) -> jax.Array:
    return root + threshold * penalty._slope(root) - size
