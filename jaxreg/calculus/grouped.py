"""The group lift: a scalar penalty laid on the size of each group."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxreg import groups
from jaxreg.penalty import Leafwise, Number, static

_NEWTON_STEPS = 8


class GroupPenalty(Leafwise):
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
    def magnitude(self) -> Leafwise:
        """The penalty of a group's root mean square."""

    @property
    def is_convex(self) -> bool:
        return self.magnitude.is_convex

    @property
    def varying_step(self) -> bool:
        return self.magnitude.is_convex

    @property
    def group_axes(self) -> tuple[int, ...]:
        return groups.as_axes(self.group_axis)

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        return groups.refusal(self.group_axes, shape)

    def step_for(self, width: Number) -> jax.Array:
        return self.magnitude.step_for(width)

    def leaf_value(self, leaf: jax.Array) -> jax.Array:
        rms = groups.root_mean_square(leaf, self.group_axes)
        return groups.size(self.group_axes, leaf.shape) * self.magnitude.leaf_value(rms)

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        rms = groups.root_mean_square(leaf, self.group_axes)
        slope = self.magnitude.leaf_subgradient(rms)
        return leaf * (slope / jnp.where(rms > 0, rms, 1.0))

    def leaf_stationarity(self, leaf: jax.Array, grad: jax.Array) -> jax.Array:
        rms = groups.root_mean_square(leaf, self.group_axes)
        pull = groups.root_mean_square(grad, self.group_axes)
        excess = self.magnitude.leaf_stationarity(jnp.zeros_like(rms), pull)
        at_zero = jnp.abs(grad) * (excess / jnp.where(pull > 0, pull, 1.0))
        return jnp.where(rms > 0, jnp.abs(grad + self.leaf_subgradient(leaf)), at_zero)

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        within = groups.within_axes(self.group_axes, leaf.ndim)
        shape = (1,) * (leaf.ndim - step.ndim) + step.shape
        if all(shape[axis] == 1 for axis in within):
            return self._prox_uniform(leaf, step)
        return self._prox_varying(leaf, jnp.broadcast_to(step, leaf.shape))

    def _prox_uniform(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        bounds = jnp.finfo(leaf.dtype)
        # The clip keeps the quotient right where the squares under- or overflow.
        rms = groups.root_mean_square(leaf, self.group_axes)
        rms = rms.clip(bounds.tiny, bounds.max)
        return leaf * (self.magnitude.leaf_prox(rms, step) / rms)

    def _prox_varying(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        moves = step > 0
        speed = jnp.where(moves, leaf / jnp.where(moves, step, 1.0), 0.0)
        pull = groups.root_mean_square(speed, self.group_axes)
        excess = self.magnitude.leaf_stationarity(jnp.zeros_like(pull), pull)
        within = groups.within_axes(self.group_axes, leaf.ndim)
        is_fixed = jnp.any(~moves & (leaf != 0), axis=within, keepdims=True)
        is_active = (excess > 0) | is_fixed
        size, slope = self._solve_size(leaf, step, is_active)
        return jnp.where(is_active, leaf * (size / (size + step * slope)), 0.0)

    def _solve_size(
        self, leaf: jax.Array, step: jax.Array, is_active: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """The RMS of the answer per group, and the slope of `phi` there."""
        within = groups.within_axes(self.group_axes, leaf.ndim)
        scale = jnp.where(is_active, self._lower_bound(leaf, step), 1.0)

        def slope_at(size: jax.Array) -> tuple[jax.Array, jax.Array]:
            one = jnp.ones_like(size)
            return jax.jvp(self.magnitude.leaf_subgradient, (size,), (one,))

        def newton(_: Any, size: jax.Array) -> jax.Array:
            slope, bend = slope_at(size)
            below = size + step * slope
            share = (leaf / below) ** 2
            total = jnp.mean(share, axis=within, keepdims=True)
            lean = share * (1 + step * bend) / below
            turn = jnp.mean(lean, axis=within, keepdims=True)
            move = total * (jnp.sqrt(total) - 1) / jnp.where(turn > 0, turn, 1.0)
            return jnp.where(is_active, size + jnp.maximum(move, 0.0), size)

        size = jax.lax.fori_loop(0, _NEWTON_STEPS, newton, scale)
        return size, slope_at(size)[0]

    def _lower_bound(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        """The largest of three proven lower bounds of the RMS of the answer."""
        within = groups.within_axes(self.group_axes, leaf.ndim)
        rms = groups.root_mean_square(leaf, self.group_axes)
        # phi is convex and the answer no larger than v, so this slope bounds its own.
        slope = self.magnitude.leaf_subgradient(rms)
        lowest = jnp.min(step, axis=within, keepdims=True)
        highest = jnp.max(step, axis=within, keepdims=True)
        share = jnp.where(step > 0, lowest / jnp.where(step > 0, step, 1.0), 1.0)
        weighted = groups.root_mean_square(leaf * share, self.group_axes)
        root = jnp.sqrt(groups.size(self.group_axes, leaf.shape)).astype(leaf.dtype)
        single = jnp.abs(leaf) - step * slope * root
        bounds = (
            rms - highest * slope,
            weighted - lowest * slope,
            jnp.max(single, axis=within, keepdims=True) / root,
            jnp.full_like(rms, jnp.finfo(leaf.dtype).tiny),
        )
        return jnp.max(jnp.stack(bounds), axis=0)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Grouped(GroupPenalty):
    """What `grouped` returns."""

    penalty: Leafwise
    group_axis: groups.GroupAxis = static()

    @property
    def magnitude(self) -> Leafwise:
        return self.penalty


def grouped(penalty: Leafwise, group_axis: groups.GroupAxis) -> Grouped:
    """Lays an elementwise penalty on the root mean square of each group.

    `sum_g n_g phi(r_g)` with `phi` the given penalty, `n_g` the size of group `g` and
    `r_g = ||x_g|| / sqrt(n_g)`. `grouped(L1(s), axis)` is `GroupLasso(s, axis)`.

    Args:
      penalty: an elementwise penalty; its numbers are in units of one weight.
      group_axis: the axis, or axes, that index the groups.

    Raises:
      TypeError: `penalty` is already grouped, or `group_axis` holds other than ints.

    Reference: Yuan and Lin 2006, Model selection and estimation in regression with
    grouped variables, eq. 2.1 (weights sqrt of the group size).

    >>> import jax.numpy as jnp, jaxreg
    >>> rows = jaxreg.grouped(jaxreg.ElasticNet(1.0, 0.5), group_axis=0)
    >>> rows.prox(jnp.array([[3.0, 3.0], [0.5, -0.5]]), 1.0)
    Array([[1., 1.],
           [0., 0.]], dtype=float32)
    """
    if not isinstance(penalty, Leafwise) or penalty.group_axes is not None:
        raise TypeError(
            f"grouped({penalty!r}): allowed is an elementwise penalty, such as L1(1e-3)"
        )
    groups.as_axes(group_axis)
    return Grouped(penalty, group_axis)
