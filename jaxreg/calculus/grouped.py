"""The group lift: a scalar penalty on the size of each group."""

from __future__ import annotations

import abc
import math

import jax
import jax.numpy as jnp

from jaxreg._core import groups
from jaxreg._core.checks import check_elementwise
from jaxreg._core.layout import Shape
from jaxreg._core.leafwise import Elementwise, Groupwise, nan_if_infinite
from jaxreg._core.penalty import Facts, Number, is_untouched
from jaxreg._core.pytree import pytree_dataclass, static
from jaxreg._numerics.group_size import group_size

# Entries per pass of a loop over groups: 1 MiB in float32, the cache of one core.
BLOCK = 2**18


class GroupPenalty(Groupwise):
    r"""`sum_g n_g phi(r_g)`, with `n_g` the size and `r_g` the RMS of group `g`.

    `phi` is the elementwise penalty `magnitude`. Written with the root mean square,
    its numbers keep their meaning in units of a weight: groups of one entry give `phi`
    itself, and `phi = L1(strength)` gives the group lasso with weights sqrt(n_g).

    For a step that is constant within a group, `prox(v) = v prox_phi(r) / r`: it is as
    exact as the prox of `phi`. For steps that vary, stationarity reads
    `x_i = v_i t / (t + s_i phi'(t))` with `t` the RMS of the result: `group_results`.
    """

    group_axis: groups.GroupAxis

    carries_nan = True

    @property
    @abc.abstractmethod
    def magnitude(self) -> Elementwise:
        """The penalty of a group's root mean square."""

    @property
    def facts(self) -> Facts:
        magnitude = self.magnitude.facts
        return Facts(
            is_convex=magnitude.is_convex,
            varying_step=magnitude.is_convex,
            zeros="units" if magnitude.zeros else None,
            is_absolute=True,
            is_homogeneous=magnitude.is_homogeneous,
            is_radial=True,
        )

    def step_for(self, width: Number) -> jax.Array:
        return self.magnitude.step_for(width)

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        rms = groups.root_mean_square(leaf, self._axes)
        return groups.size(self._axes, leaf.shape) * self.magnitude.leaf_values(rms)

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        rms = groups.root_mean_square(leaf, self._axes)
        slope = self.magnitude.leaf_subgradient(rms)
        return leaf * (slope / jnp.where(rms > 0, rms, 1.0))

    def leaf_stationarity(self, leaf: jax.Array, grad: jax.Array) -> jax.Array:
        rms = groups.root_mean_square(leaf, self._axes)
        pull = groups.root_mean_square(grad, self._axes)
        excess = self.magnitude.leaf_stationarity(jnp.zeros_like(rms), pull)
        at_zero = jnp.abs(grad) * (excess / jnp.where(pull > 0, pull, 1.0))
        return jnp.where(rms > 0, jnp.abs(grad + self.leaf_subgradient(leaf)), at_zero)

    def leaf_start(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        rms = groups.root_mean_square(leaf, self._axes)
        start = self.magnitude.leaf_start(rms, step)
        return leaf * (start / jnp.where(rms > 0, rms, 1.0))

    @property
    def _has_own_latents(self) -> bool:
        return True

    def leaf_nearest(
        self, latent: jax.Array, leaf: jax.Array, step: jax.Array
    ) -> jax.Array:
        square = groups.mean_square(leaf, self._axes)
        size = groups.clipped_root(square)
        start = leaf * (self.magnitude.leaf_start(size, step) / size)
        is_unchanged = is_untouched(latent, start)
        # As in the prox of the latent, so that XLA computes it once for both.
        square_of_latent = groups.mean_square(nan_if_infinite(latent), self._axes)
        length = groups.clipped_root(square_of_latent)
        within = self.magnitude.leaf_nearest(length, jnp.zeros_like(length), step)
        at_zero = latent * _share(within, length)
        return jnp.where(square == 0, at_zero, jnp.where(is_unchanged, latent, start))

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        return self.prox_of(leaf, step, self.group_results(leaf, step))

    def group_results(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        """One number per group from which its prox follows entry by entry.

        It is a factor where the step is uniform, else the root mean square of the prox.
        """
        leaf = nan_if_infinite(leaf)
        if self.layout.is_uniform(step.shape, leaf.ndim):
            return self._factor(leaf, step)
        return group_size(self.magnitude, leaf, step, self._axes)

    def prox_of(
        self, leaf: jax.Array, step: jax.Array, results: jax.Array
    ) -> jax.Array:
        """The prox from the `group_results`."""
        if self.layout.is_uniform(step.shape, leaf.ndim):
            return leaf * results
        is_active = results > 0
        size = jnp.where(is_active, results, 1.0)
        below = size + step * self.magnitude.leaf_subgradient(size)
        return jnp.where(is_active, leaf * _share(size, below), results)

    def _factor(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        size = groups.clipped_root(groups.mean_square(leaf, self._axes))
        return _share(self.magnitude.leaf_prox(size, step), size)

    def leaves_at_once(self, shape: Shape, step_shape: Shape) -> int:
        varies = self.layout.step_varies(shape, step_shape)
        return BLOCK // max(math.prod(shape), 1) if varies else 0


@jax.custom_jvp
def _share(part: jax.Array, whole: jax.Array) -> jax.Array:
    """`part / whole`, and exactly 1 where they are equal.

    On a GPU XLA's quotient is off by up to two units, even of a number by itself: a
    group that should stay would grow or shrink by rounding at every step.
    """
    return jnp.where(part == whole, 1.0, part / whole)


@_share.defjvp
def _share_jvp(
    primals: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    share, (_, whole) = _share(*primals), primals
    part_moves, whole_moves = tangents
    return share, (part_moves - share * whole_moves) / whole


@pytree_dataclass
class Grouped(GroupPenalty):
    """The result of `grouped`."""

    penalty: Elementwise
    group_axis: groups.GroupAxis = static()

    @property
    def magnitude(self) -> Elementwise:
        return self.penalty


def grouped(penalty: Elementwise, group_axis: groups.GroupAxis) -> Grouped:
    """Lays an elementwise penalty on the root mean square of each group.

    `sum_g n_g phi(r_g)` with `phi` the given penalty, `n_g` the size of group `g` and
    `r_g = ||x_g|| / sqrt(n_g)`. `grouped(L1(s), axis)` is `GroupLasso(s, axis)`.

    Args:
      penalty: an elementwise penalty; its numbers are in units of one weight.
      group_axis: the axis, or axes, that index the groups, or `Blocks`.

    Raises:
      TypeError: `penalty` is not elementwise, or `group_axis` holds anything but ints.

    Reference: Yuan and Lin 2006, Model selection and estimation in regression with
    grouped variables, eq. 2.1 (weights sqrt of the group size).

    >>> import jax.numpy as jnp, jaxreg
    >>> rows = jaxreg.grouped(jaxreg.ElasticNet(1.0, 0.5), group_axis=0)
    >>> rows.prox(jnp.array([[3.0, 3.0], [0.5, -0.5]]), 1.0)
    Array([[1., 1.],
           [0., 0.]], dtype=float32)
    """
    check_elementwise("grouped", penalty, group_axis=group_axis)
    groups.check_group_axis(group_axis)
    return Grouped(penalty, group_axis)
