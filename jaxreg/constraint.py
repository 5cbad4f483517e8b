"""Constraints: the penalty that is 0 on a set and infinite off it.

The prox of an indicator is the projection on its set, whatever the step.
"""

from __future__ import annotations

import abc
from typing import Literal

import jax
import jax.numpy as jnp

from jaxreg.leafwise import Leafwise
from jaxreg.penalty import Number, Tree


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
                largest = jnp.maximum(jnp.max(jnp.abs(leaf)), jnp.max(jnp.abs(other)))
                limit = 8 * jnp.finfo(kind).eps * largest * leaf.size**0.5
                is_inside &= jnp.sqrt(jnp.sum((leaf - other) ** 2)) <= limit
        return jnp.where(is_inside, 0.0, jnp.inf)

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        return self.value(leaf)

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        return jnp.zeros_like(leaf)

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        return jnp.where(step > 0, self.leaf_projection(leaf, step), leaf)

    def _pair(self, params: Tree) -> tuple[Tree, Tree]:
        """The parameters and their projection, both in at least float32."""
        wide = jax.tree.map(jnp.asarray, params)
        wide = jax.tree.map(
            lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)), wide
        )
        return wide, self.prox(wide, 1.0)
