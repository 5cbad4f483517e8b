"""Wrappers around one penalty, and trees of numbers that go with the parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxreg._core.layout import Layout, Shape
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


@dataclasses.dataclass(frozen=True)
class Fitted(Layout):
    """The layout `inner`, for leaves that an array beside them fits.

    `misfit(shape)` says why it does not fit a leaf of this shape, or None.
    """

    inner: Layout
    misfit: Callable[[Shape], str | None]

    def refusal(self, shape: Shape) -> str | None:
        return self.inner.refusal(shape) or self.misfit(shape)

    def view(self, shape: Shape) -> Shape:
        return self.inner.view(shape)

    def whole_axes(self, shape: Shape) -> Sequence[int]:
        return self.inner.whole_axes(shape)

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
    """Whether an array of one shape broadcasts to another without making it larger."""
    pairs = zip(small[::-1], shape[::-1], strict=False)
    return len(small) <= len(shape) and all(n in (1, whole) for n, whole in pairs)


def step_tree(params: Tree, step: Number | Tree) -> Tree:
    """One step per leaf, as a tree with the structure of `params`."""
    return jax.tree.unflatten(jax.tree.structure(params), steps_like(params, step))


def widened_tree(params: Tree) -> Tree:
    """The leaves in at least float32."""
    return jax.tree.map(widened, params)


def cast_like(tree: Tree, params: Tree) -> Tree:
    """The leaves in the dtypes of those of `params`."""
    return jax.tree.map(lambda new, leaf: new.astype(leaf.dtype), tree, params)


def is_single(companion: Tree) -> bool:
    """Whether one number or array goes with every leaf."""
    return jax.tree_util.all_leaves([companion])


def one_per_leaf(params: Tree, companion: Tree, name: str) -> list[Any]:
    """What goes with each leaf of `params`: the same for all, or a tree like it.

    Rules hand a penalty the leaves it catches as a list, in the order of the tree; a
    companion of as many leaves goes with them by place.
    """
    leaves, treedef = jax.tree.flatten(params)
    if is_single(companion):
        return [companion] * len(leaves)
    parts = jax.tree.leaves(companion)
    is_flat = isinstance(params, list) and jax.tree_util.all_leaves(params)
    if is_flat and len(parts) == len(leaves):
        return parts
    mend = "allowed: one number, one array, or a tree with the structure of params"
    parts = flatten_like(treedef, companion, name, mend)
    if not jax.tree_util.all_leaves(parts):
        raise ValueError(f"{name} has several numbers where params has a leaf; {mend}")
    return parts
