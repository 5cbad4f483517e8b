"""Cuts leaves to the units that stay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

AxisKept = list[int] | list[list[int]] | None
"""The indices that stay along an axis; per layer a list of them; None for all."""
LeafKept = list[AxisKept]
"""What stays along each axis of a leaf."""


def cut_leaf(leaf: Any, kept: Sequence[AxisKept]) -> Any:
    """The entries of a leaf that stay, with its dtype and, if it fits, its sharding.

    Layers that keep units of their own lie along axis 0.
    """
    if all(indices is None for indices in kept):
        return leaf
    out = jnp.asarray(leaf)
    for axis, indices in enumerate(kept):
        if indices is None:
            continue
        index = jnp.asarray(indices, "int32")
        if index.ndim == 1:
            out = jnp.take(out, index, axis=axis)
        else:
            others = [a for a in range(out.ndim) if a not in (0, axis)]
            out = jnp.take_along_axis(out, jnp.expand_dims(index, others), axis=axis)
    return _placed(out, leaf)


def _placed(out: jax.Array, leaf: Any) -> jax.Array:
    """The array in the sharding of the original, or replicated on its devices."""
    sharding = leaf.sharding if isinstance(leaf, jax.Array) else None
    if not isinstance(sharding, NamedSharding) or isinstance(leaf, jax.core.Tracer):
        return out
    if not divides(sharding, out.shape):
        sharding = NamedSharding(sharding.mesh, PartitionSpec())
    return jax.device_put(out, sharding)


def divides(sharding: NamedSharding, shape: tuple[int, ...]) -> bool:
    """True if every sharded axis is a multiple of its number of shards."""
    for size, names in zip(shape, sharding.spec, strict=False):
        names = names if isinstance(names, tuple) else (names,)
        shards = [sharding.mesh.shape[name] for name in names if name is not None]
        for count in shards:
            if size % count:
                return False
            size //= count
    return True
