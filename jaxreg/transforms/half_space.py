"""Groups that turn against themselves become zero."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxreg._core import groups, shards
from jaxreg._core.checks import check_numbers
from jaxreg._core.penalty import Number, Penalty, Tree
from jaxreg.rules.by_path import Part
from jaxreg.transforms._leaves import updates_to


def half_space(
    penalty: Penalty, margin: Number = 0.0
) -> optax.GradientTransformationExtraArgs:
    """Zeroes groups whose step leaves their half-space, and holds zeros.

    Last in a chain, the second phase of HSPG. With `x` a group and `u` its update,

        `x <- x + u` where `<x + u, x> >= margin |x|^2`, else 0.

    Larger margins zero more. What is zero stays so.

    Args:
      penalty: a penalty with `group_axis`, or `by_path` of such: it tells the groups.
      margin: from 0 to below 1.

    Raises:
      TypeError: at the first update, a penalty without groups.
      ValueError: missing params, or a rule that catches no leaf.

    Reference: Chen et al. 2021, A half-space stochastic projected gradient method for
    group sparsity regularization, arXiv 2009.12078, equation 8.

    >>> import jax.numpy as jnp, optax, jaxreg
    >>> rows = jaxreg.GroupLasso(1.0, group_axis=0)
    >>> tx = optax.chain(optax.sgd(1.0), jaxreg.half_space(rows))
    >>> w = jnp.array([[2.0, 1.0], [0.5, 0.1]])
    >>> optax.apply_updates(w, tx.update(jnp.ones((2, 2)), tx.init(w), w)[0])
    Array([[1., 0.],
           [0., 0.]], dtype=float32)
    """
    check_numbers(penalty)

    def init(params: Tree) -> optax.EmptyState:
        del params
        return optax.EmptyState()

    def targets(part: Part, leaves: list[Any], points: list[Any]) -> list[Any]:
        axis = vars(part.penalty).get("group_axis")
        if axis is None:
            raise TypeError(
                f"half_space({part.penalty!r}): allowed are penalties with a "
                "group_axis, as jaxreg.GroupLasso(1e-3, group_axis=1). For single "
                "entries use jaxreg.orthant"
            )
        pairs = zip(leaves, points, strict=True)
        return [_kept(leaf, point, axis, margin) for leaf, point in pairs]

    def update(
        updates: Tree, state: Any, params: Tree | None = None, **extra: Any
    ) -> tuple[Tree, Any]:
        del extra
        return updates_to("half_space", penalty, updates, params, targets), state

    return optax.GradientTransformationExtraArgs(init, update)


def _kept(leaf: jax.Array, point: jax.Array, axis: Any, margin: Number) -> jax.Array:
    """The point, with the groups that left their half-space at zero."""
    view = groups.view(axis, leaf.shape)
    seen, moved = (shards.reshaped("half_space", x, view) for x in (leaf, point))
    within = groups.within_axes(groups.indexing(axis), len(view))
    along = jnp.sum(moved * seen, axis=within, keepdims=True)
    square = jnp.sum(seen * seen, axis=within, keepdims=True)
    is_dead = jnp.all(seen == 0, axis=within, keepdims=True)
    # What is not finite has to show: zeros would pass for a pruned group.
    is_out = is_dead | ((along < margin * square) & jnp.isfinite(along))
    kept = jnp.where(is_out, 0.0, moved)
    return shards.reshaped("half_space", kept, leaf.shape)
