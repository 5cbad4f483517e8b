"""The maximum norm."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core import groups
from jaxreg._core.leafwise import Groupwise, magnitude
from jaxreg._core.penalty import Facts, Number, ratio
from jaxreg._core.pytree import pytree_dataclass, static
from jaxreg._numerics.level import cut_to_total


@pytree_dataclass
class LInf(Groupwise):
    """The maximum norm, `strength * sum_g n_g max |w_g|`.

    `n_g` is the number of entries of group `g`, so that one strength suits groups of
    every size: a group of equal entries costs the same as under `L1`. `strength / n`
    gives the textbook norm. The prox clips the magnitudes of a group to a common level,
    which is exactly 0 if `sum |v_i| / s_i <= strength n_g`. Use it to narrow the range
    of weights before they are quantised, or with `group_axis` to select groups as a
    whole. The subgradient at a group of zeros is 0. bfloat16 leaves are computed in
    float32. It never sorts.

    Args:
      strength: >= 0, in units of loss per unit of weight.
      group_axis: the axis, or axes, that index the groups, or `Blocks`; None makes each
        leaf one group.

    Raises:
      TypeError: `group_axis` contains a non-int.

    Reference: Parikh and Boyd 2014, Proximal algorithms, section 6.5.2; Quattoni et al.
    2009, An efficient projection for l1,infinity regularization.

    >>> import jax.numpy as jnp, jaxreg
    >>> jaxreg.LInf(0.5).prox(jnp.array([3.0, -2.5, 0.5, 0.0]), step=1.0)
    Array([ 1.75, -1.75,  0.5 ,  0.  ], dtype=float32)
    """

    strength: Number
    group_axis: groups.GroupAxis | None = static(default=None)

    has_loop = True
    facts = Facts(varying_step=True, zeros="units", is_homogeneous=True)

    def step_for(self, width: Number) -> jax.Array:
        return ratio(width, self.strength)

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        size = groups.size(self._axes, leaf.shape)
        return self.strength * (size * self._highest(magnitude(leaf)))

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        within = groups.within_axes(self._axes, leaf.ndim)
        is_top = jnp.abs(leaf) == self._highest(jnp.abs(leaf))
        tied = jnp.sum(is_top, axis=within, keepdims=True)
        return jnp.where(is_top, self._weight(leaf) * jnp.sign(leaf) / tied, 0)

    def leaf_stationarity(self, leaf: jax.Array, grad: jax.Array) -> jax.Array:
        """The distance from the pull to its projection on the subdifferential.

        That is an L1 ball at zero, and elsewhere a simplex: the largest entries share
        `strength n_g`.
        """
        within = groups.within_axes(self._axes, leaf.ndim)
        top, weight = self._highest(jnp.abs(leaf)), self._weight(leaf)
        is_zero, is_top = top == 0, jnp.abs(leaf) == top
        side = jnp.where(is_zero, -jnp.sign(grad), jnp.sign(leaf))
        pull = -grad * side
        lowest = jnp.finfo(leaf.dtype).min / 2
        slopes = jnp.ones((1,) * leaf.ndim, leaf.dtype)
        candidates = jnp.where(is_top, pull, lowest)
        shares = cut_to_total(candidates, slopes, weight, self._axes).pieces
        is_inside = jnp.sum(jnp.abs(grad), axis=within, keepdims=True) <= weight
        return jnp.where(is_zero & is_inside, 0, jnp.abs(grad + side * shares))

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        within, size = groups.within_axes(self._axes, leaf.ndim), magnitude(leaf)
        moves = step > 0
        if self.layout.is_uniform(step.shape, leaf.ndim):
            slopes = jnp.where(moves, 1, 0) * jnp.ones((1,) * leaf.ndim, leaf.dtype)
            least = jnp.where(moves, step, 1)
        else:
            least = jnp.where(moves, step, jnp.inf)
            least = jnp.min(least, axis=within, keepdims=True)
            least = jnp.where(jnp.isfinite(least), least, 1)
            slopes = jnp.where(moves, least / jnp.where(moves, step, 1), 0)
        scaled = slopes * size
        total = self._weight(leaf) * least
        cut = cut_to_total(scaled, slopes, total, self._axes)
        is_dead = jnp.sum(scaled, axis=within, keepdims=True) <= total
        level = jnp.where(is_dead, 0, cut.level)
        largest_fixed = self._highest(jnp.where(moves, 0, size))
        # As the search counts it: an entry at the level has the level's derivative.
        is_cut = jnp.where(level > largest_fixed, cut.is_active, size >= largest_fixed)
        level = jnp.maximum(level, largest_fixed)
        excess = jax.lax.stop_gradient(jnp.maximum(size - level, 0))
        sign = jnp.sign(leaf)
        clipped = jnp.where(is_cut, sign * level, leaf - sign * excess)
        return jnp.where(moves, clipped, leaf)

    def _weight(self, leaf: jax.Array) -> jax.Array:
        size = groups.size(self._axes, leaf.shape)
        return jnp.asarray(self.strength, leaf.dtype) * size

    def _highest(self, leaf: jax.Array) -> jax.Array:
        within = groups.within_axes(self._axes, leaf.ndim)
        return jnp.max(leaf, axis=within, keepdims=True)
