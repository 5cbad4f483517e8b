"""Penalties and constraints that act on each group of a leaf, or on a leaf as one."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxreg._core import groups
from jaxreg._core.leafwise import Leafwise, longest
from jaxreg._core.shards import reshaped


class InGroups(Leafwise):
    """What `group_axis` says of a leaf; None makes the leaf one group."""

    group_axis: Any

    def __post_init__(self) -> None:
        groups.indexing(self.group_axis)

    @property
    def _axes(self) -> tuple[int, ...]:
        return groups.indexing(self.group_axis)

    def view(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return groups.view(self.group_axis, shape)

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        return groups.refusal(self.group_axis, shape)

    def group_count(self, shape: tuple[int, ...]) -> int:
        return groups.count(self._axes, self.view(shape))

    def dead_groups(self, leaf: jax.Array) -> jax.Array:
        return groups.dead(self._seen(leaf), self._axes)

    def independent_axis(self, shape: tuple[int, ...]) -> int | None:
        is_plain = self.view(shape) == shape
        return longest(self._axes, shape) if is_plain else None

    def step_varies(self, shape: tuple[int, ...], step_shape: tuple[int, ...]) -> bool:
        if self.view(shape) != shape:
            return math.prod(step_shape) > 1
        return not self._is_uniform(step_shape, len(shape))

    def _is_uniform(self, step_shape: tuple[int, ...], ndim: int) -> bool:
        """Whether a step of this shape is one number within each group."""
        lengths = (1,) * (ndim - len(step_shape)) + step_shape
        return all(lengths[axis] == 1 for axis in groups.within_axes(self._axes, ndim))

    def _slopes(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        """The steps of a leaf's entries, or ones where the metric does not matter."""
        if self._is_uniform(step.shape, leaf.ndim):
            return jnp.ones((1,) * leaf.ndim, leaf.dtype)
        return jnp.broadcast_to(step, leaf.shape)


class WholeGroups(InGroups):
    """Penalties that zero whole groups, never an entry of a group that stays."""

    def unit_sizes(self, leaf: jax.Array) -> jax.Array:
        """The root mean square of every group, in the shape of the view."""
        return groups.root_mean_square(self._seen(leaf), self._axes)

    def spread(self, units: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        whole = jnp.broadcast_to(units, self.view(shape))
        return reshaped(repr(self), whole, shape)
