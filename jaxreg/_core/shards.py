"""Leaves that lie in shards on several devices."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

WHOLE_HINT = (
    "Shard another axis, gather this leaf first with jax.sharding.reshard(leaf, "
    "jax.NamedSharding(mesh, jax.P())), or make the mesh with "
    "jax.sharding.AxisType.Auto, where XLA gathers by itself"
)


COUPLED = "the penalty couples its entries with those of other parts"


def reshaped(owner: str, leaf: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The leaf in another shape, every shard on the device where it is.

    Raises:
      ValueError: on an explicit mesh, what is one axis in the other shape would be cut
        by the shards.
    """
    sharding: Any = jax.typeof(leaf).sharding
    if leaf.shape == shape or not any(sharding.spec):
        return leaf.reshape(shape)
    parts: list[Any] = []
    for old, new in _runs(leaf.shape, shape):
        lengths = [shape[axis] for axis in new]
        run: list[Any] = [None] * len(new)
        for axis in (axis for axis in old if sharding.spec[axis] is not None):
            name = sharding.spec[axis]
            # The shards are those of the first axis along which there are any.
            is_first = all(leaf.shape[before] == 1 for before in old if before < axis)
            first = next((i for i, n in enumerate(lengths) if n > 1), 0)
            if not is_first or lengths[first] % count(sharding.mesh, name):
                raise ValueError(
                    f"{owner}: axis {axis} of a leaf of shape {leaf.shape} is sharded "
                    f"over mesh axis {name!r}, and its {count(sharding.mesh, name)} "
                    f"shards cut the blocks of the view {shape}. Choose blocks of "
                    f"which a shard holds a whole number. {WHOLE_HINT}"
                )
            run[first] = name
        parts += run
    spec = NamedSharding(sharding.mesh, PartitionSpec(*parts))
    return jnp.reshape(leaf, shape, out_sharding=spec)


def count(mesh: Any, names: Any) -> int:
    """Into how many shards a mesh axis, or several, or None, cut an axis of a leaf."""
    listed = names if isinstance(names, tuple) else (names,)
    return math.prod(mesh.shape[name] for name in listed if name is not None)


def local_axes(leaf: Any) -> tuple[str, ...]:
    """Mesh axes along which `leaf` is a per-device shard inside `shard_map`.

    With `check_vma=False`, and in a `pmap`, nothing is known of a leaf: it counts as
    whole.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.manual_axes:
        return ()
    varying = jax.typeof(leaf).manual_axis_type.varying
    return tuple(
        name for name in mesh.manual_axes if name in varying and mesh.shape[name] > 1
    )


def check_whole_leaf(owner: str, leaf: Any, why: str) -> None:
    """Raises if a leaf is one device's part, inside a `shard_map`."""
    axes = local_axes(leaf)
    if axes:
        raise ValueError(
            f"{owner}: in this jax.shard_map the leaf, of shape {jnp.shape(leaf)}, is "
            f"one device's part along mesh axis {', '.join(map(repr, axes))}, and "
            f"{why}. Take the update out of shard_map and put it under jax.jit, which "
            "sums over devices by itself, or pass the leaf in whole, by "
            "in_specs=jax.P(). If no group crosses devices, or each part is a leaf of "
            "its own, jax.shard_map(..., check_vma=False) says so"
        )


def _runs(
    old: Sequence[int], new: Sequence[int]
) -> Iterator[tuple[list[int], list[int]]]:
    """The axes of two shapes of one size, in the shortest runs of equal products."""
    i = j = 0
    while i < len(old) or j < len(new):
        begin, start = i, j
        one = other = 1
        if i < len(old):
            one, i = old[i], i + 1
        else:
            j = len(new)
        while one != other:
            if other < one:
                other, j = other * new[j], j + 1
            else:
                one, i = one * old[i], i + 1
        yield list(range(begin, i)), list(range(start, j))
