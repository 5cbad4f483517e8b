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
    """The maximum norm, `strength * sum_g n_g max |w_g|`: it levels the largest.

    `n_g` is the number of entries of group `g`, so that one strength suits groups of
    every size: a group of equal entries costs what `L1` costs. `strength / n` gives the
    textbook norm. The prox cuts a group's magnitudes at one level, and to exactly 0 if
    `sum |v_i| / s_i <= strength n_g`. Use it to narrow the range of weights before they
    are quantised, or with `group_axis` to select groups as a whole. The subgradient at
    a group of zeros is 0. bfloat16 leaves are computed in float32. It never sorts.

    Args:
      strength: >= 0, in units of loss per unit of weight.
      group_axis: the axis, or axes, that index the groups, or `Blocks`; None makes each
        leaf one group.

    Raises:
      TypeError: `group_axis` holds other than ints.

    Reference: Parikh and Boyd 2014, Proximal algorithms, section 6.5.2; Quattoni et al.
    2009, An efficient projection for l1,infinity regularization.

    >>> import jax.numpy as jnp, jaxreg
    >>> jaxreg.LInf(0.5).prox(jnp.array([3.0, -2.5, 0.5, 0.0]), step=1.0)
    Array([ 1.75, -1.75,  0.5 ,  0.  ], dtype=float32)
    """

    strength: Number
    group_axis: groups.GroupAxis | None = static(default=None)

    has_loop = True
    facts = Facts(varying_step=True, zeros="units")

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
        """The pull minus its nearest point among the subgradients.

        At zero these are an L1 ball; elsewhere the shares that the largest entries take
        of `strength n_g`, a simplex.
        """
        within = groups.within_axes(self._axes, leaf.ndim)
        top, weight = self._highest(jnp.abs(leaf)), self._weight(leaf)
        is_zero, is_top = top == 0, jnp.abs(leaf) == top
        side = jnp.where(is_zero, -jnp.sign(grad), jnp.sign(leaf))
        pull = -grad * side
        lowest = jnp.finfo(leaf.dtype).min / 2
        one = jnp.ones((1,) * leaf.ndim, leaf.dtype)
        heights = jnp.where(is_top, pull, lowest)
        shares, _ = cut_to_total(heights, one, weight, self._axes)
        is_inside = jnp.sum(jnp.abs(grad), axis=within, keepdims=True) <= weight
        return jnp.where(is_zero & is_inside, 0, jnp.abs(grad + side * shares))

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        within, size = groups.within_axes(self._axes, leaf.ndim), magnitude(leaf)
        moves = step > 0
        least = jnp.where(moves, step, jnp.inf)
        if self.layout.is_uniform(step.shape, leaf.ndim):
            slopes = jnp.where(moves, 1, 0) * jnp.ones((1,) * leaf.ndim, leaf.dtype)
            least = jnp.where(moves, step, 1)
        else:
            least = jnp.min(least, axis=within, keepdims=True)
            least = jnp.where(jnp.isfinite(least), least, 1)
            slopes = jnp.where(moves, least / jnp.where(moves, step, 1), 0)
        heights = slopes * size
        total = self._weight(leaf) * least
        _, level = cut_to_total(heights, slopes, total, self._axes)
        is_dead = jnp.sum(heights, axis=within, keepdims=True) <= total
        held = self._highest(jnp.where(moves, 0, size))
        level = jnp.maximum(jnp.where(is_dead, 0, level), held)
        # An entry at the level moves with it.
        cut = jnp.sign(leaf) * jnp.where(size >= level, level, size)
        return jnp.where(moves, cut, leaf)

    def _weight(self, leaf: jax.Array) -> jax.Array:
        size = groups.size(self._axes, leaf.shape)
        return jnp.asarray(self.strength, leaf.dtype) * size

    def _highest(self, leaf: jax.Array) -> jax.Array:
        within = groups.within_axes(self._axes, leaf.ndim)
        return jnp.max(leaf, axis=within, keepdims=True)
