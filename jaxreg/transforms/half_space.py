"""Zeroes groups whose step leaves their half-space."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from jaxreg._core import groups, shards
from jaxreg._core.checks import check_numbers
from jaxreg._core.layout import Groups
from jaxreg._core.messages import shown
from jaxreg._core.penalty import Number, Penalty
from jaxreg._core.ranges import check_share
from jaxreg.rules.by_path import Part
from jaxreg.transforms._leaves import stateless


def half_space(
    penalty: Penalty, margin: Number = 0.0
) -> optax.GradientTransformationExtraArgs:
    """Zeroes groups whose step leaves their half-space, and holds zeros.

    Last in a chain, the second phase of HSPG. With `x` a group and `u` its update,

        `x <- x + u` where `<x + u, x> >= margin |x|^2`, else 0.

    Larger margins zero more groups. Zero groups stay zero.

    Args:
      penalty: a penalty with `group_axis`, or `by_path` of such penalties; it
        determines the groups.
      margin: from 0 to below 1.

    Raises:
      TypeError, ValueError: at the call an argument out of range; at the first update a
        penalty without groups, missing params, or a rule that catches no leaf.

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
    check_numbers(penalty, margin=margin)
    check_share("half_space: margin", margin)

    def targets(
        part: Part, leaves: list[jax.Array], points: list[jax.Array]
    ) -> list[jax.Array]:
        layout = part.penalty.layout.as_groups
        if layout is None:
            raise TypeError(
                f"half_space({shown(part.penalty)}): allowed are penalties with a "
                "group_axis, as jaxreg.GroupLasso(1e-3, group_axis=1). For single "
                "entries use jaxreg.orthant"
            )
        pairs = zip(leaves, points, strict=True)
        return [_zero_outside(leaf, point, layout, margin) for leaf, point in pairs]

    return stateless("half_space", penalty, targets)


def _zero_outside(
    leaf: jax.Array, point: jax.Array, layout: Groups, margin: Number
) -> jax.Array:
    """Zeroes the groups of the point that left their half-space."""
    view = layout.view(leaf.shape)
    before, after = (shards.reshaped("half_space", x, view) for x in (leaf, point))
    within = groups.within_axes(layout.axes, len(view))
    along = jnp.sum(after * before, axis=within, keepdims=True)
    square = jnp.sum(before * before, axis=within, keepdims=True)
    is_dead = jnp.all(before == 0, axis=within, keepdims=True)
    # A NaN or infinity must propagate: zeros would pass for a pruned group.
    is_out = is_dead | ((along < margin * square) & jnp.isfinite(along))
    after = jnp.where(is_out, 0.0, after)
    return shards.reshaped("half_space", after, leaf.shape)
