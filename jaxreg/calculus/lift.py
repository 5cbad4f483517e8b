"""What penalties made of one other have in common."""

from __future__ import annotations

from typing import Any, Literal

import jax

from jaxreg._core.penalty import (
    Number,
    Penalty,
    Tree,
    flatten_like,
    steps_like,
    widened,
)


class Lift(Penalty):
    """A penalty made of one other, whose facts it keeps."""

    penalty: Penalty

    @property
    def has_prox(self) -> bool:
        return self.penalty.has_prox

    @property
    def prox_tolerance(self) -> float:
        return self.penalty.prox_tolerance

    @property
    def is_convex(self) -> bool:
        return self.penalty.is_convex

    @property
    def varying_step(self) -> bool:
        return self.penalty.varying_step

    @property
    def is_separable(self) -> bool:
        return self.penalty.is_separable

    @property
    def scope(self) -> Literal["leaf", "tree"]:
        return self.penalty.scope

    @property
    def stationarity_kind(self) -> Literal["distance", "residual", "normal cone"]:
        return self.penalty.stationarity_kind

    def step_for(self, width: Number) -> jax.Array:
        return self.penalty.step_for(width)

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        return self.penalty.refusal(shape)

    def independent_axis(self, shape: tuple[int, ...]) -> int | None:
        return self.penalty.independent_axis(shape)

    def is_coupled(self, shape: tuple[int, ...]) -> bool:
        return self.penalty.is_coupled(shape)

    def group_count(self, shape: tuple[int, ...]) -> int | None:
        return self.penalty.group_count(shape)

    def dead_groups(self, leaf: jax.Array) -> jax.Array | None:
        return self.penalty.dead_groups(leaf)

    def pooled(self, leaf: jax.Array) -> jax.Array:
        return self.penalty.pooled(leaf)

    def unit_sizes(self, leaf: jax.Array) -> jax.Array:
        return self.penalty.unit_sizes(leaf)

    def spread(self, units: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        return self.penalty.spread(units, shape)


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
