"""Constraints: the penalty that is 0 on a set and infinite off it.

The prox of an indicator is the projection on its set, whatever the step.
"""

from __future__ import annotations

import abc
from typing import Literal

import jax
import jax.numpy as jnp

from jaxreg._core.leafwise import Leafwise
from jaxreg._core.penalty import Number, Tree, widened


class Constraint(Leafwise):
    """The indicator of a set of arrays: subclasses write the projection of one array.

    `value` is 0 while the distance to the set is within rounding, else infinity, and
    has gradient 0; `violation` is that distance. A step of 0 leaves its entry as it is.
    """

    is_convex = True
    varying_step = False
    stationarity_kind: Literal["distance", "residual", "normal cone"] = "normal cone"

    @abc.abstractmethod
    def leaf_projection(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        """The nearest point of the set, squares weighed by `1 / step`."""

    def step_for(self, width: Number) -> jax.Array:
        return jnp.asarray(width, jnp.result_type(width, jnp.float32))

    def violation(self, params: Tree) -> jax.Array:
        """The Euclidean distance of `params` to the set, a scalar."""
        squares = jax.tree.map(lambda x, y: jnp.sum((x - y) ** 2), *self._pair(params))
        zero = jnp.zeros((), jnp.float32)
        return jnp.sqrt(sum(jax.tree.leaves(squares), start=zero))

    def value(self, params: Tree) -> jax.Array:
        given, nearest = jax.lax.stop_gradient(self._pair(params))
        is_inside = jnp.array(True)
        pairs = zip(jax.tree.leaves(given), jax.tree.leaves(nearest), strict=True)
        kinds = (jnp.asarray(leaf).dtype for leaf in jax.tree.leaves(params))
        for (leaf, other), kind in zip(pairs, kinds, strict=True):
            if leaf.size:
                is_inside &= _is_near(leaf, other, float(jnp.finfo(kind).eps))
        return jnp.where(is_inside, 0.0, jnp.inf)

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        return self.value(leaf)

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        return jnp.zeros_like(leaf)

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        return jnp.where(step > 0, self.leaf_projection(leaf, step), leaf)

    def _pair(self, params: Tree) -> tuple[Tree, Tree]:
        """The parameters and their projection, both in at least float32."""
        wide = jax.tree.map(widened, params)
        return wide, self.prox(wide, 1.0)


def _is_near(leaf: jax.Array, other: jax.Array, eps: float) -> jax.Array:
    """Whether two arrays differ by no more than rounding, 8 units of their norm."""
    largest = jnp.maximum(jnp.max(jnp.abs(leaf)), jnp.max(jnp.abs(other)))
    # Divided by the largest first: squares of 1e30 overflow.
    scale = jnp.where(largest > 0, largest, 1)
    one, two = leaf / scale, other / scale
    square = jnp.maximum(jnp.sum(one * one), jnp.sum(two * two))
    return jnp.sum((one - two) ** 2) <= (8 * eps) ** 2 * square
