"""Cuts leaves to the units that stay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

AxisKept = list[int] | list[list[int]] | None
"""The indices that stay along an axis; per layer a list of them; None for all."""
LeafKept = list[AxisKept]
"""What stays along each axis of a leaf."""


def cut_leaf(leaf: Any, kept: LeafKept) -> Any:
    """The entries of a leaf that stay, with its dtype and, if it fits, its sharding."""
    return cut_leaves([leaf], [kept])[0]


def cut_leaves(leaves: Sequence[Any], kept: Sequence[LeafKept]) -> list[Any]:
    """The entries of leaves that stay; leaves that are whole are returned as they are.

    Layers that keep units of their own lie along axis 0.
    """
    out = list(leaves)
    places = [i for i, axes in enumerate(kept) if any(a is not None for a in axes)]

    @jax.jit
    def cut(whole: list[jax.Array]) -> list[jax.Array]:
        return [_taken(x, kept[i]) for x, i in zip(whole, places, strict=True)]

    for place, part in zip(places, cut([leaves[i] for i in places]), strict=True):
        out[place] = _placed(part, leaves[place])
    return out


def whole(leaf: jax.Array) -> jax.Array:
    """The leaf on every device of an explicit mesh, to take entries along any axis."""
    sharding = jax.typeof(leaf).sharding
    if not any(sharding.spec):
        return leaf
    return jax.sharding.reshard(leaf, jax.NamedSharding(sharding.mesh, jax.P()))


def _taken(leaf: jax.Array, kept: LeafKept) -> jax.Array:
    leaf = whole(leaf)
    for axis, indices in enumerate(kept):
        if indices is None:
            continue
        index = jnp.asarray(indices, "int32")
        if index.ndim == 1:
            leaf = jnp.take(leaf, index, axis=axis)
        else:
            others = [other for other in range(leaf.ndim) if other not in (0, axis)]
            index = jnp.expand_dims(index, others)
            leaf = jnp.take_along_axis(leaf, index, axis=axis)
    return leaf


def _placed(part: jax.Array, leaf: Any) -> jax.Array:
    """The array in the sharding of the original, or replicated on its devices."""
    if isinstance(leaf, jax.core.Tracer) or not isinstance(leaf, jax.Array):
        return part
    sharding = leaf.sharding
    if not isinstance(sharding, NamedSharding):
        return part
    if not _divides(sharding, part.shape):
        sharding = NamedSharding(sharding.mesh, PartitionSpec())
    return jax.device_put(part, sharding)


def _divides(sharding: NamedSharding, shape: tuple[int, ...]) -> bool:
    """True if every sharded axis is a multiple of its number of shards."""
    for size, names in zip(shape, sharding.spec, strict=False):
        axes = names if isinstance(names, tuple) else (names,)
        shards = [sharding.mesh.shape[name] for name in axes if name is not None]
        if size % math.prod(shards):
            return False
    return True
