"""Sums whose prox is the composition of two proxes."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core.constraint import Constraint
from jaxreg._core.layout import Groups, Layout
from jaxreg._core.leafwise import RESIDUAL_WIDTH, check_step
from jaxreg._core.penalty import (
    Facts,
    Number,
    Penalty,
    Tree,
    exact_sum,
    grads_like,
    ratio,
    sum_or_none,
    widened,
)
from jaxreg._core.pytree import pytree_dataclass
from jaxreg.calculus.lift import cast_like, step_tree, widened_tree


@pytree_dataclass
class DecomposedSum(Penalty):
    r"""The sum of `g`, positively homogeneous, and `f`, a function of Euclidean norms.

        `prox(v) = prox_f(prox_g(v))`

    `prox_f` multiplies each of its units by a number from 0 to 1, and so the
    subgradients of `g` stay subgradients. `g` couples no entries of two units of `f`.
    With steps that vary within a unit, `prox_f` multiplies each entry by a number of
    its own: then the formula holds if `g` is separable.

    Reference: Yu 2013, On decomposing the proximal map, theorem 4.
    """

    homogeneous: Penalty
    radial: Penalty

    @property
    def facts(self) -> Facts:
        inner, outer = self.homogeneous.facts, self.radial.facts
        kinds = {inner.stationarity_kind, outer.stationarity_kind}
        return Facts(
            is_joint=inner.is_joint or outer.is_joint,
            varying_step=(
                inner.is_separable and inner.varying_step and outer.varying_step
            ),
            prox_tolerance=inner.prox_tolerance + outer.prox_tolerance,
            zeros=inner.zeros,
            is_absolute=inner.is_absolute and outer.is_absolute,
            is_homogeneous=outer.is_homogeneous,
            stationarity_kind="distance" if kinds == {"distance"} else "residual",
        )

    @property
    def layout(self) -> Layout:
        # The units that are zeroed as one are those of the other penalty.
        is_separable = self.homogeneous.facts.is_separable
        return (self.radial if is_separable else self.homogeneous).layout

    def step_for(self, width: Number) -> jax.Array:
        # Forces add up, and the inverse of the step is their sum; that of a constraint
        # is 0 or infinite, whatever the step.
        step = self.homogeneous.step_for(width)
        if isinstance(self.radial, Constraint):
            return step
        return ratio(step, 1 + step / self.radial.step_for(width))

    def value(self, params: Tree) -> jax.Array:
        return self.homogeneous.value(params) + self.radial.value(params)

    def subgradient(self, params: Tree) -> Tree:
        wide = widened_tree(params)
        slopes = (p.subgradient(wide) for p in (self.homogeneous, self.radial))
        return cast_like(jax.tree.map(jnp.add, *slopes), params)

    def prox(self, params: Tree, step: Number | Tree) -> Tree:
        steps = step_tree(params, step)
        for leaf, leaf_step in zip(*map(jax.tree.leaves, (params, steps)), strict=True):
            check_step(self, self.radial.layout, jnp.shape(leaf), leaf_step.shape)
        between = self.homogeneous.prox(widened_tree(params), steps)
        return cast_like(self.radial.prox(between, steps), params)

    def stationarity(self, params: Tree, grads: Tree) -> Tree:
        treedef = jax.tree.structure(params)
        wide = widened_tree(params)
        pulls = list(map(widened, grads_like(params, grads)))
        pulls = jax.tree.unflatten(treedef, pulls)
        if self.facts.stationarity_kind == "distance":
            return self._distance(wide, pulls)
        step = self.step_for(RESIDUAL_WIDTH)
        ahead = jax.tree.map(
            lambda x, pull: x - step.astype(x.dtype) * pull, wide, pulls
        )
        return jax.tree.map(
            lambda x, y: jnp.abs(x - y) / step.astype(x.dtype),
            *(wide, self.prox(ahead, step)),
        )

    def _distance(self, params: Tree, pulls: Tree) -> Tree:
        """The distance; in a unit of zeros both penalties can balance the pull."""
        leaves, treedef = jax.tree.flatten(params)
        beyond = self.homogeneous.prox(pulls, 1.0)
        zeros = jax.tree.map(jnp.zeros_like, params)
        at_zero = self.radial.stationarity(zeros, beyond)
        slopes = self.radial.subgradient(params)
        smooth = jax.tree.map(jnp.add, pulls, slopes)
        distances = self.homogeneous.stationarity(params, smooth)
        is_dead = jax.tree.unflatten(treedef, self.radial.layout.is_dead(leaves))
        return jax.tree.map(jnp.where, is_dead, at_zero, distances)

    @property
    def _has_own_latents(self) -> bool:
        return self.homogeneous._has_own_latents and self.radial._has_own_latents

    def _nearest(self, latent: Tree, params: Tree, step: Number) -> Tree:
        # The preimages of the two proxes, in reverse order. A NaN would spread.
        latent = jax.tree.map(lambda z, x: jnp.where(z == z, z, x), latent, params)
        between = self.homogeneous.prox(latent, step)
        between = self.radial._nearest(between, params, step)
        return self.homogeneous._nearest(latent, between, step)


@exact_sum(Penalty, Penalty)
def _decomposed(first: Penalty, second: Penalty) -> DecomposedSum | None:
    inner, outer = first.facts, second.facts
    is_convex = inner.is_convex and outer.is_convex
    if not (is_convex and inner.is_homogeneous and outer.is_radial):
        return None
    return DecomposedSum(first, second) if _is_within(first, second) else None


def _is_within(inner: Penalty, outer: Penalty) -> bool:
    """True if the first couples no entries of two units of the second."""
    if inner.facts.is_separable:
        return True
    if inner.facts.is_joint:
        return False
    is_equal = inner.layout == outer.layout and not outer.facts.is_homogeneous
    return is_equal or outer.layout == Groups(None)


@exact_sum(DecomposedSum, Penalty)
def _with_other(first: DecomposedSum, second: Penalty) -> Penalty | None:
    both = sum_or_none(first.homogeneous, second)
    return None if both is None else _decomposed(both, first.radial)
