"""Constraints: the penalty that is 0 on a set and infinite off it.

The prox of an indicator is the projection on its set, whatever the step.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable

import jax
import jax.numpy as jnp

from jaxreg._core.leafwise import Leafwise
from jaxreg._core.penalty import Facts, Number, Tree, is_untouched, widened

# Norms of the set's own numbers by which a projection may round.
_SLACK = 8


class Constraint(Leafwise):
    """The indicator of a set of arrays: subclasses write the projection of one array.

    `value` is 0 while the distance to the set is within rounding, else infinity, and
    has gradient 0; `violation` is that distance. A step of 0 leaves its entry as it is.
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
        given, nearest = jax.lax.stop_gradient(self._pair(params))
        is_off = are_apart(*map(jax.tree.leaves, (params, given, nearest)))
        return jnp.where(is_off, jnp.inf, 0.0)

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        return self.value(leaf)

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        return jnp.zeros_like(leaf)

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        return jnp.where(step > 0, self.leaf_projection(leaf, step), leaf)

    def leaf_nearest(
        self, latent: jax.Array, leaf: jax.Array, step: jax.Array
    ) -> jax.Array:
        if not self.facts.is_separable:
            return super().leaf_nearest(latent, leaf, step)
        # Every latent beyond a bound has the bound for its projection.
        is_projected = is_untouched(self.leaf_projection(latent, step), leaf)
        return jnp.where(is_projected, latent, leaf)

    def _pair(self, params: Tree) -> tuple[Tree, Tree]:
        """The parameters and their projection, both in at least float32."""
        wide = jax.tree.map(widened, params)
        return wide, self.prox(wide, 1.0)


def are_apart(
    params: Iterable[jax.Array],
    leaves: Iterable[jax.Array],
    others: Iterable[jax.Array],
) -> jax.Array:
    """Whether any leaf is off another by more than rounding in the dtype of `params`.

    Rounding is 8 units of the leaf's norm.
    """
    is_apart = jnp.array(False)
    for leaf, wide, other in zip(params, leaves, others, strict=True):
        if wide.size:
            eps = float(jnp.finfo(jnp.result_type(leaf)).eps)
            is_apart |= ~_is_near(wide, other, eps)
    return is_apart


def _is_near(leaf: jax.Array, other: jax.Array, eps: float) -> jax.Array:
    largest = jnp.maximum(jnp.max(jnp.abs(leaf)), jnp.max(jnp.abs(other)))
    # Divided by the largest first: squares of 1e30 overflow.
    scale = jnp.where(largest > 0, largest, 1)
    one, two = leaf / scale, other / scale
    square = jnp.maximum(jnp.sum(one * one), jnp.sum(two * two))
    return jnp.sum((one - two) ** 2) <= (_SLACK * eps) ** 2 * square
