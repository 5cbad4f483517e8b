"""Constraints: penalties that are 0 on a set and infinite off it.

The prox of an indicator is the projection on its set, whatever the step.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable

import jax
import jax.numpy as jnp

from jaxreg._core.leafwise import Leafwise
from jaxreg._core.penalty import Facts, Number, Tree, is_untouched, widened

# Units of rounding, relative to the norm, by which a projection may be off.
_SLACK = 8


class Constraint(Leafwise):
    """The indicator of a set of arrays: subclasses write the projection of one array.

    `value` is 0 while the distance to the set is within rounding, else infinity, and
    has gradient 0; `violation` is that distance. A step of 0 keeps its entry.
    """

    @property
    def facts(self) -> Facts:
        return Facts(stationarity_kind="normal cone")

    @abc.abstractmethod
    def leaf_projection(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        """The projection in the metric `1 / step`."""

    def step_for(self, width: Number) -> jax.Array:
        return jnp.asarray(width, jnp.result_type(width, jnp.float32))

    def violation(self, params: Tree) -> jax.Array:
        """The Euclidean distance of `params` to the set, a scalar."""
        squares = jax.tree.map(lambda x, y: jnp.sum((x - y) ** 2), *self._pair(params))
        zero = jnp.zeros((), jnp.float32)
        return jnp.sqrt(sum(jax.tree.leaves(squares), start=zero))

    def value(self, params: Tree) -> jax.Array:
        pair = jax.lax.stop_gradient(self._pair(params))
        is_off = are_apart(*map(jax.tree.leaves, (params, *pair)))
        return jnp.where(is_off, jnp.inf, 0.0)

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        return self.value(leaf)

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        return jnp.zeros_like(leaf)

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        return jnp.where(step > 0, self.leaf_projection(leaf, step), leaf)

    @property
    def _has_own_latents(self) -> bool:
        return self.facts.is_separable

    def leaf_nearest(
        self, latent: jax.Array, leaf: jax.Array, step: jax.Array
    ) -> jax.Array:
        if not self.facts.is_separable:
            return super().leaf_nearest(latent, leaf, step)
        # Every latent beyond a bound projects to the bound.
        is_projected = is_untouched(self.leaf_projection(latent, step), leaf)
        return jnp.where(is_projected, latent, leaf)

    def _pair(self, params: Tree) -> tuple[Tree, Tree]:
        """The parameters and their projection, both in at least float32."""
        wide = jax.tree.map(widened, params)
        return wide, self.prox(wide, 1.0)


def are_apart(
    params: Iterable[jax.Array],
    points: Iterable[jax.Array],
    projections: Iterable[jax.Array],
) -> jax.Array:
    """True if a point misses its projection by more than the rounding of `params`.

    Rounding is 8 units, in the dtype of `params`, of the leaf's norm.
    """
    is_apart = jnp.array(False)
    for leaf, point, projection in zip(params, points, projections, strict=True):
        if point.size:
            eps = float(jnp.finfo(jnp.result_type(leaf)).eps)
            is_apart |= ~_is_near(point, projection, eps)
    return is_apart


def _is_near(point: jax.Array, projection: jax.Array, eps: float) -> jax.Array:
    largest = jnp.maximum(jnp.max(jnp.abs(point)), jnp.max(jnp.abs(projection)))
    # Divided by the largest first: squares of 1e30 overflow.
    scale = jnp.where(largest > 0, largest, 1)
    point, projection = point / scale, projection / scale
    square = jnp.maximum(jnp.sum(point * point), jnp.sum(projection * projection))
    return jnp.sum((point - projection) ** 2) <= (_SLACK * eps) ** 2 * square
