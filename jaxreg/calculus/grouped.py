"""The group lift: a scalar penalty laid on the size of each group."""

from __future__ import annotations

import abc
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxreg import groups
from jaxreg.in_groups import WholeGroups
from jaxreg.leafwise import Elementwise
from jaxreg.penalty import Number
from jaxreg.pytree import pytree_dataclass, static

_NEWTON_STEPS = 7


class GroupPenalty(WholeGroups):
    r"""`sum_g n_g phi(r_g)`, with `n_g` the size and `r_g` the RMS of group `g`.

    `phi` is the elementwise penalty `magnitude`. Written with the root mean square,
    its numbers keep their meaning in units of a weight: groups of one entry give `phi`
    itself, and `phi = L1(strength)` gives the group lasso with weights sqrt(n_g).

    For a step that is constant within a group, `prox(v) = v prox_phi(r) / r`: it is as
    exact as the prox of `phi`. For steps that vary, stationarity reads
    `x_i = v_i t / (t + s_i phi'(t))` with `t` the RMS of the answer, so `t` solves
    `mean_i (v_i / (t + s_i phi'(t)))^2 = 1`. Newton's method on the inverse square root
    of the left side starts below the root and rises to it, quadratically, where `phi`
    is convex with a concave slope (L1, L2, ElasticNet): the function is then concave.
    """

    group_axis: groups.GroupAxis

    @property
    @abc.abstractmethod
    def magnitude(self) -> Elementwise:
        """The penalty of a group's root mean square."""

    @property
    def is_convex(self) -> bool:
        return self.magnitude.is_convex

    @property
    def varying_step(self) -> bool:
        return self.magnitude.is_convex

    def pooled(self, leaf: jax.Array) -> jax.Array:
        if self.view(leaf.shape) != leaf.shape:
            return leaf
        return groups.fast_root_mean_square(leaf, self._axes)

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

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        if self._is_uniform(step.shape, leaf.ndim):
            return self._prox_uniform(leaf, step)
        return self._prox_varying(leaf, jnp.broadcast_to(step, leaf.shape))

    def _prox_uniform(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        bounds = jnp.finfo(leaf.dtype)
        rms = groups.fast_root_mean_square(leaf, self._axes)
        is_plain = (rms > bounds.tiny) & (rms < bounds.max)
        size = jnp.where(is_plain, rms, 1.0)
        # Where the squares under- or overflow: the factor at the end of the range.
        edge = jax.lax.stop_gradient(rms.clip(bounds.tiny, bounds.max))
        at_edge = jax.lax.stop_gradient(self.magnitude.leaf_prox(edge, step) / edge)
        factor = self.magnitude.leaf_prox(size, step) / size
        return leaf * jnp.where(is_plain, factor, at_edge)

    def _prox_varying(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        within = groups.within_axes(self._axes, leaf.ndim)
        moves = step > 0
        speed = jnp.where(moves, leaf / jnp.where(moves, step, 1.0), 0.0)
        pull = groups.root_mean_square(speed, self._axes)
        excess = self.magnitude.leaf_stationarity(jnp.zeros_like(pull), pull)
        is_fixed = jnp.any(~moves & (leaf != 0), axis=within, keepdims=True)
        is_active = (excess > 0) | is_fixed
        # A Newton step at the root has the derivative of the root, by the implicit
        # function theorem: only this last one is differentiated.
        still = jax.lax.stop_gradient((self.magnitude, leaf, step))
        size = _solve_size(*still, is_active, self._axes)
        size = size + _newton_move(self.magnitude, leaf, step, is_active, within, size)
        slope = self.magnitude.leaf_subgradient(size)
        return jnp.where(is_active, leaf * (size / (size + step * slope)), 0.0)


@functools.partial(jax.jit, static_argnames="axes")
def _solve_size(
    magnitude: Elementwise,
    leaf: jax.Array,
    step: jax.Array,
    is_active: jax.Array,
    axes: tuple[int, ...],
) -> jax.Array:
    """Per group, the root mean square of the answer, by Newton from below."""
    within = groups.within_axes(axes, leaf.ndim)
    start = jnp.where(is_active, _lower_bound(magnitude, leaf, step, axes), 1.0)

    def rise(_: Any, size: jax.Array) -> jax.Array:
        move = _newton_move(magnitude, leaf, step, is_active, within, size)
        return size + jnp.maximum(move, 0.0)

    return jax.lax.fori_loop(0, _NEWTON_STEPS, rise, start)


def _newton_move(
    magnitude: Elementwise,
    leaf: jax.Array,
    step: jax.Array,
    is_active: jax.Array,
    within: tuple[int, ...],
    size: jax.Array,
) -> jax.Array:
    one = jnp.ones_like(size)
    slope, bend = jax.jvp(magnitude.leaf_subgradient, (size,), (one,))
    below = size + step * slope
    share = (leaf / below) ** 2
    lean = share * (1 + step * bend) / below
    # Idle groups must not send a NaN into the gradient of the others.
    total = jnp.where(is_active, jnp.mean(share, axis=within, keepdims=True), 1.0)
    turn = jnp.where(is_active, jnp.mean(lean, axis=within, keepdims=True), 1.0)
    return total * (jnp.sqrt(total) - 1) / turn


def _lower_bound(
    magnitude: Elementwise, leaf: jax.Array, step: jax.Array, axes: tuple[int, ...]
) -> jax.Array:
    """The largest of three proven lower bounds of the root.

    Each is the root of a problem whose left side lies below: all steps as large as the
    largest, all steps as small as the smallest with entries to match, one entry alone.
    """
    within = groups.within_axes(axes, leaf.ndim)
    lowest = jnp.min(step, axis=within, keepdims=True)
    highest = jnp.max(step, axis=within, keepdims=True)
    share = jnp.where(step > 0, lowest / jnp.where(step > 0, step, 1.0), 1.0)
    rms = groups.root_mean_square(leaf, axes)
    weighted = groups.root_mean_square(leaf * share, axes)
    single = jnp.abs(leaf) / math.sqrt(groups.size(axes, leaf.shape))
    alone = jnp.max(magnitude.leaf_prox(single, step), axis=within, keepdims=True)
    bounds = (
        magnitude.leaf_prox(rms, highest),
        magnitude.leaf_prox(weighted, lowest),
        alone,
        jnp.full_like(rms, jnp.finfo(leaf.dtype).tiny),
    )
    return jnp.max(jnp.stack(bounds), axis=0)


@pytree_dataclass
class Grouped(GroupPenalty):
    """What `grouped` returns."""

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
      TypeError: `penalty` is not elementwise, or `group_axis` holds other than ints.

    Reference: Yuan and Lin 2006, Model selection and estimation in regression with
    grouped variables, eq. 2.1 (weights sqrt of the group size).

    >>> import jax.numpy as jnp, jaxreg
    >>> rows = jaxreg.grouped(jaxreg.ElasticNet(1.0, 0.5), group_axis=0)
    >>> rows.prox(jnp.array([[3.0, 3.0], [0.5, -0.5]]), 1.0)
    Array([[1., 1.],
           [0., 0.]], dtype=float32)
    """
    if not isinstance(penalty, Elementwise):
        raise TypeError(
            f"grouped({penalty!r}): allowed is an elementwise penalty, such as L1(1e-3)"
        )
    groups.check_group_axis(group_axis)
    return Grouped(penalty, group_axis)
