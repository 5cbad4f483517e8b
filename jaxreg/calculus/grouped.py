"""The group lift: a scalar penalty on the size of each group."""

from __future__ import annotations

import abc
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxreg._core import groups
from jaxreg._core.checks import check_elementwise
from jaxreg._core.layout import Shape
from jaxreg._core.leafwise import Elementwise, Groupwise, Leafwise, nan_if_infinite
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
        return leaf * slope_factor(self.magnitude, rms)

    def leaf_stationarity(self, leaf: jax.Array, grad: jax.Array) -> jax.Array:
        rms = groups.root_mean_square(leaf, self._axes)
        pull = groups.root_mean_square(grad, self._axes)
        at_zero = jnp.abs(grad) * excess_factor(self.magnitude, pull)
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
        # As in the prox of the latent, so that XLA computes it once for both.
        square_of_latent = groups.mean_square(nan_if_infinite(latent), self._axes)
        factors = nearest_factors(self.magnitude, square, square_of_latent, step)
        return nearest_in_groups(latent, leaf, factors)

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        return self.prox_of(leaf, step, self.group_results(leaf, step))

    def group_results(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        """One number per group from which its prox follows entry by entry.

        It is a factor where the step is uniform, else the root mean square of the prox.
        """
        leaf = nan_if_infinite(leaf)
        if self.layout.is_uniform(step.shape, leaf.ndim):
            square = groups.mean_square(leaf, self._axes)
            return prox_factor(self.magnitude, square, step)
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

    def leaves_at_once(self, shape: Shape, step_shape: Shape) -> int:
        varies = self.layout.step_varies(shape, step_shape)
        return BLOCK // max(math.prod(shape), 1) if varies else 0


# A penalty `phi` of the root mean square of a group acts on each entry by a factor that
# the group has in common.


def slope_factor(magnitude: Leafwise, size: jax.Array) -> jax.Array:
    """`phi'(r) / r`: the subgradient over the entry; `size` is the RMS `r`."""
    slope = magnitude.leaf_subgradient(size)
    return slope / jnp.where(size > 0, size, 1.0)


def excess_factor(magnitude: Leafwise, pull: jax.Array) -> jax.Array:
    """The stationarity of a zero group over the gradient, whose RMS is `pull`."""
    excess = magnitude.leaf_stationarity(jnp.zeros_like(pull), pull)
    return excess / jnp.where(pull > 0, pull, 1.0)


def prox_factor(magnitude: Leafwise, square: jax.Array, step: jax.Array) -> jax.Array:
    """The prox over the entry, of a group with this mean square."""
    size = groups.clipped_root(square)
    return _share(magnitude.leaf_prox(size, step), size)


class NearestFactors(NamedTuple):
    """What `nearest_in_groups` needs of a group."""

    is_dead: jax.Array
    of_leaf: jax.Array
    of_latent: jax.Array


def nearest_factors(
    magnitude: Leafwise,
    square: jax.Array,
    square_of_latent: jax.Array,
    step: jax.Array,
) -> NearestFactors:
    """The factors of `nearest_in_groups`, from mean squares of leaf and latent."""
    size, length = map(groups.clipped_root, (square, square_of_latent))
    within = magnitude.leaf_nearest(length, jnp.zeros_like(length), step)
    start = magnitude.leaf_start(size, step)
    return NearestFactors(square == 0, start / size, _share(within, length))


def nearest_in_groups(
    latent: jax.Array, leaf: jax.Array, factors: NearestFactors
) -> jax.Array:
    """The nearest latent: in a dead group along the old one, else along the leaf."""
    start = leaf * factors.of_leaf
    alive = jnp.where(is_untouched(latent, start), latent, start)
    return jnp.where(factors.is_dead, latent * factors.of_latent, alive)


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
