"""Bounds on the Euclidean norm of each group."""

from __future__ import annotations

import abc
import math

import jax
import jax.numpy as jnp

from jaxreg._core import groups
from jaxreg._core.constraint import Constraint
from jaxreg._core.leafwise import RESIDUAL_WIDTH, Groupwise
from jaxreg._core.penalty import Number
from jaxreg._numerics.level import norm


class NormBounds(Groupwise, Constraint):
    """Bounds on the Euclidean norm of each group."""

    @property
    @abc.abstractmethod
    def _bounds(self) -> tuple[Number, Number]:
        """The lower and the upper bound."""

    def leaf_stationarity(self, leaf: jax.Array, grad: jax.Array) -> jax.Array:
        """The gradient along the sphere, and the prox residual of the norm.

        In these polar coordinates no step is so large that it passes through the centre
        to the other side.
        """
        within = groups.within_axes(self._axes, leaf.ndim)
        step = self.step_for(RESIDUAL_WIDTH).astype(leaf.dtype)
        lower, upper = (jnp.asarray(bound, leaf.dtype) for bound in self._bounds)
        size = norm(leaf, self._axes)
        unit = leaf / jnp.where(size > 0, size, 1)
        pull = jnp.sum(unit * grad, axis=within, keepdims=True)
        along = grad - pull * unit
        moved = (size - step * pull).clip(lower, upper)
        missing = jnp.where(size > 0, 0, lower / step)
        return jnp.abs(along + unit * ((size - moved) / step)) + missing


def bounded_norm(
    leaf: jax.Array, lower: Number, upper: Number, axes: tuple[int, ...]
) -> jax.Array:
    """The nearest point at which the norms of all groups are within bounds.

    A group of zeros, for which all directions are equally near, gets equal entries.
    """
    lower, upper = (jnp.asarray(bound, leaf.dtype) for bound in (lower, upper))
    root = math.sqrt(groups.size(axes, leaf.shape))
    rms = groups.root_mean_square(leaf, axes)
    is_zero = rms == 0
    unit = jnp.where(is_zero, 1, leaf / jnp.where(is_zero, 1, rms))
    size = root * rms
    is_sphere = lower == upper
    bounded = jnp.where(is_sphere, upper, size.clip(lower, upper))
    is_inside = (size >= lower) & (size <= upper)
    # On a sphere the norm is constant; the derivative alone sees this factor of 1.
    ratio = bounded / jnp.where(is_zero, 1, size)
    on_sphere = leaf * (1 + ratio - jax.lax.stop_gradient(ratio))
    inside = jnp.where(is_sphere, on_sphere, leaf)
    return jnp.where(is_inside, inside, unit * (bounded / root))
