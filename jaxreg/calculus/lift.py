"""Wrappers around one penalty, and trees of numbers that match the parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxreg._core.layout import Groups, Layout, Shape
from jaxreg._core.penalty import (
    Facts,
    Number,
    Penalty,
    Tree,
    flatten_like,
    steps_like,
    widened,
)


class Lift(Penalty):
    """Base class for wrappers around one penalty, with its facts and layout."""

    penalty: Penalty

    @property
    def facts(self) -> Facts:
        return self.penalty.facts

    @property
    def layout(self) -> Layout:
        return self.penalty.layout

    def step_for(self, width: Number) -> jax.Array:
        return self.penalty.step_for(width)

    @property
    def _has_own_latents(self) -> bool:
        return self.penalty._has_own_latents


@dataclasses.dataclass(frozen=True)
class Fitted(Layout):
    """The layout `inner`, for leaves that match a given array.

    `misfit(shape)` is the reason why a leaf of this shape does not match, or None.
    """

    inner: Layout
    misfit: Callable[[Shape], str | None]

    @property
    def as_groups(self) -> Groups | None:
        return self.inner.as_groups

    def refusal(self, shape: Shape) -> str | None:
        return self.inner.refusal(shape) or self.misfit(shape)

    def view(self, shape: Shape) -> Shape:
        return self.inner.view(shape)

    def whole_axes(self, shape: Shape) -> Sequence[int]:
        return self.inner.whole_axes(shape)

    def coupled_axes(self, ndim: int) -> Sequence[int]:
        return self.inner.coupled_axes(ndim)

    def always_whole_axes(self, shape: Shape) -> Sequence[int]:
        return self.inner.always_whole_axes(shape)

    def step_varies(self, shape: Shape, step_shape: Shape) -> bool:
        return self.inner.step_varies(shape, step_shape)

    def unit_count(self, shape: Shape) -> int | None:
        return self.inner.unit_count(shape)

    def unit_sizes(self, leaves: Sequence[jax.Array]) -> list[jax.Array]:
        return self.inner.unit_sizes(leaves)

    def spread(
        self, units: Sequence[jax.Array], shapes: Sequence[Shape]
    ) -> list[jax.Array]:
        return self.inner.spread(units, shapes)


def broadcasts(small: Shape, shape: Shape) -> bool:
    """True if an array of shape `small` broadcasts to `shape` without enlarging it."""
    pairs = zip(small[::-1], shape[::-1], strict=False)
    return len(small) <= len(shape) and all(n in (1, whole) for n, whole in pairs)


def aligned(small: jax.Array, leaf: jax.Array) -> jax.Array:
    """An array that broadcasts to a leaf, with as many axes, unless it is a number.

    JAX's `jax_numpy_rank_promotion` may forbid that it adds them by itself.
    """
    missing = leaf.ndim - small.ndim if small.ndim else 0
    return jax.lax.expand_dims(small, range(missing))


def step_tree(params: Tree, step: Number | Tree) -> Tree:
    """One step per leaf, as a tree with the structure of `params`."""
    return jax.tree.unflatten(jax.tree.structure(params), steps_like(params, step))


def widened_tree(params: Tree) -> Tree:
    """The leaves in at least float32."""
    return jax.tree.map(widened, params)


def cast_like(tree: Tree, params: Tree) -> Tree:
    """Casts the leaves to the dtypes of those of `params`."""
    return jax.tree.map(
        lambda new, leaf: new.astype(jnp.result_type(leaf)), tree, params
    )


def unless_zero_step(steps: Tree, proxes: Tree, params: Tree) -> Tree:
    """`proxes` at entries whose step is positive, else `params`."""
    return jax.tree.map(lambda s, x, v: jnp.where(s > 0, x, v), steps, proxes, params)


def is_single(companion: Tree) -> bool:
    """True if one number or array goes with every leaf."""
    return jax.tree_util.all_leaves([companion])


def one_per_leaf(params: Tree, companion: Tree, name: str) -> list[Number]:
    """The entry of `companion` for each leaf of `params`; one number serves all.

    Rules pass a penalty the leaves they catch as a list, in the order of the tree; a
    companion with as many leaves is matched to them by position.
    """
    leaves, treedef = jax.tree.flatten(params)
    if is_single(companion):
        return [companion] * len(leaves)
    parts = jax.tree.leaves(companion)
    is_flat = isinstance(params, list) and jax.tree_util.all_leaves(params)
    if is_flat and len(parts) == len(leaves):
        return parts
    hint = "allowed: one number, one array, or a tree with the structure of params"
    parts = flatten_like(treedef, companion, name, hint)
    if not jax.tree_util.all_leaves(parts):
        raise ValueError(f"{name} has several numbers where params has a leaf; {hint}")
    return parts
