"""A bound on the number of non-zero entries."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp

from jaxreg._core.checks import check_countable
from jaxreg._core.constraint import Constraint
from jaxreg._core.groups import check_count
from jaxreg._core.layout import Entries
from jaxreg._core.leafwise import nan_unless, without_negative_zero
from jaxreg._core.messages import shown
from jaxreg._core.penalty import (
    Facts,
    Number,
    Penalty,
    Tree,
    grads_like,
    steps_like,
    widened,
)
from jaxreg._core.pytree import pytree_dataclass, static, unit_interval
from jaxreg._numerics.largest import largest


@pytree_dataclass
class TopK(Constraint):
    """At most `count` non-zero entries, or `round(fraction size)` of them.

    The projection keeps the largest `|w|` as they are and sets the others to exactly 0;
    among equal ones the first stay. With steps s that vary it keeps the largest
    `w^2 / s`. Use it to reach a given sparsity, per leaf or over all leaves at once. It
    is not convex. Under `regularize` params become their projection at the first
    update, and `describe` shows the share that this zeroes. bfloat16 entries that stay
    keep their bits. It counts and never sorts.

    Args:
      count: an int >= 0, the number of entries to keep; pass it or `fraction`.
      fraction: from 0 to 1, the share to keep; halves round to the even number.
      scope: "leaf", each leaf by itself, or "tree", all leaves together.
      stacked: with scope "leaf", the number of leading axes along which layers are
        stacked; each layer keeps its own largest entries.

    Raises:
      TypeError: both or neither of `count` and `fraction`, or `count` is not an int.
      ValueError: a number is out of range, or `scope` is unknown.

    Reference: Blumensath and Davies 2009, Iterative hard thresholding for compressed
    sensing, eq. 6.

    >>> import jax.numpy as jnp, jaxreg
    >>> jaxreg.TopK(2).prox(jnp.array([0.1, -3.0, 2.0, 1.0]), step=1.0)
    Array([ 0., -3.,  2.,  0.], dtype=float32)
    """

    count: int | None = static(default=None)
    fraction: Number | None = unit_interval(default=None)
    scope: Literal["leaf", "tree"] = static(default="leaf")
    stacked: int = static(default=0)

    has_loop = True

    @property
    def facts(self) -> Facts:
        return Facts(
            is_convex=False,
            is_joint=self.scope == "tree",
            varying_step=True,
            stationarity_kind="normal cone",
        )

    def __post_init__(self) -> None:
        if (self.count is None) == (self.fraction is None):
            raise TypeError(f"{shown(self)}; allowed: either count or fraction")
        if self.scope not in ("leaf", "tree"):
            raise ValueError(f'{shown(self)}; allowed scopes: "leaf" and "tree"')
        check_count("TopK: stacked", self.stacked)
        if self.stacked and self.scope == "tree":
            raise ValueError(f'{shown(self)}; allowed: stacked with scope "leaf" alone')
        if self.count is not None:
            check_count("TopK: count", self.count)

    @property
    def layout(self) -> Entries:
        return Entries(stacked=self.stacked)

    def prox(self, params: Tree, step: Number | Tree) -> Tree:
        if self.scope == "leaf":
            return super().prox(params, step)
        leaves, treedef = jax.tree.flatten(params)
        leaves, steps = [jnp.asarray(x) for x in leaves], steps_like(params, step)
        is_uniform = jax.tree_util.all_leaves([step]) and jnp.ndim(step) == 0
        metric = [jnp.ones(())] * len(leaves) if is_uniform else steps
        masks = self._masks([widened(leaf) for leaf in leaves], metric)
        finite_leaves = (jnp.all(jnp.isfinite(leaf)) for leaf in leaves)
        is_finite = functools.reduce(jnp.logical_and, finite_leaves, jnp.array(True))
        out = [
            nan_unless(is_finite, jnp.where(mask | (s == 0), leaf, 0))
            for leaf, s, mask in zip(leaves, steps, masks, strict=True)
        ]
        return jax.tree.unflatten(treedef, map(without_negative_zero, out))

    def stationarity(self, params: Tree, grads: Tree) -> Tree:
        if self.scope == "leaf":
            return super().stationarity(params, grads)
        leaves, treedef = jax.tree.flatten(params)
        pulls = grads_like(params, grads)
        pairs = [[widened(x) for x in tree] for tree in (leaves, pulls)]
        return jax.tree.unflatten(treedef, self._distances(*pairs))

    def _nearest(self, latent: Tree, params: Tree, step: Number) -> Tree:
        if self.scope == "leaf":
            return super()._nearest(latent, params, step)
        return Penalty._nearest(self, latent, params, step)

    def leaf_projection(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        metric = jnp.ones(()) if step.size == 1 else step
        return jnp.where(self._masks([leaf], [metric])[0], leaf, 0)

    def leaf_stationarity(self, leaf: jax.Array, grad: jax.Array) -> jax.Array:
        return self._distances([leaf], [grad])[0]

    def _masks(
        self, leaves: Sequence[jax.Array], metric: Sequence[jax.Array]
    ) -> list[jax.Array]:
        """Masks of the entries that the joint projection of these arrays keeps."""
        if not leaves:
            return []
        constants = jax.lax.stop_gradient((leaves, metric))
        scores = [_score(leaf, step) for leaf, step in zip(*constants, strict=True)]
        return largest(scores, self._count(leaves))

    def _count(self, leaves: Sequence[jax.Array]) -> jax.Array:
        size = sum(leaf.size for leaf in leaves)
        check_countable(repr(self), size)
        if self.fraction is None:
            return jnp.asarray(min(self.count or 0, size), jnp.int32)
        share = jnp.asarray(self.fraction, jnp.float32) * size
        return jnp.round(share).clip(0, size).astype(jnp.int32)

    def _distances(
        self, leaves: Sequence[jax.Array], grads: Sequence[jax.Array]
    ) -> list[jax.Array]:
        """Zeros may move freely while fewer entries than allowed are non-zero."""
        nonzero = [jnp.sum(leaf != 0, dtype=jnp.int32) for leaf in leaves]
        is_full = sum(nonzero, start=jnp.zeros((), jnp.int32)) >= self._count(leaves)
        masks = self._masks(leaves, [jnp.ones(())] * len(leaves))
        return [
            jnp.where((leaf == 0) & is_full, 0, jnp.abs(grad))
            + jnp.where(mask, 0, jnp.abs(leaf))
            for leaf, grad, mask in zip(leaves, grads, masks, strict=True)
        ]


def _score(leaf: jax.Array, step: jax.Array) -> jax.Array:
    """`|w| / sqrt(step)`, infinite where a step of 0 keeps a non-zero entry."""
    size = jnp.abs(leaf)
    if jnp.ndim(step) == 0 and not isinstance(step, jax.core.Tracer) and step == 1:
        return size
    moves = step > 0
    root = jnp.sqrt(jnp.where(moves, step, 1).astype(leaf.dtype))
    return jnp.where(moves, size / root, jnp.where(size > 0, jnp.inf, 0))
