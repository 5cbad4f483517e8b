"""Leaves that are sharded over several devices."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

MeshAxes = str | tuple[str, ...] | None
"""The mesh axis, or axes, over which an axis of a leaf is sharded, if any."""

WHOLE_HINT = (
    "Shard another axis, gather this leaf first with jax.sharding.reshard(leaf, "
    "jax.NamedSharding(mesh, jax.P())), or make the mesh with "
    "jax.sharding.AxisType.Auto, where XLA gathers by itself"
)

COUPLED = "the penalty couples its entries with those of other parts"


def reshaped(owner: str, leaf: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Reshapes a leaf, with every shard left on its device.

    Raises:
      ValueError: on an explicit mesh, shards would cut an axis of the new shape.
    """
    sharding: NamedSharding = jax.typeof(leaf).sharding
    if leaf.shape == shape or not any(sharding.spec):
        return leaf.reshape(shape)
    parts: list[MeshAxes] = []
    for old, new in _runs(leaf.shape, shape):
        lengths = [shape[axis] for axis in new]
        run: list[MeshAxes] = [None] * len(new)
        for axis in (axis for axis in old if sharding.spec[axis] is not None):
            name = sharding.spec[axis]
            # Contiguous shards cut only the first axis of a run that is longer than 1.
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


def count(mesh: Mesh | AbstractMesh, names: MeshAxes) -> int:
    """The number of shards into which mesh axes cut an axis of a leaf; 1 for None."""
    listed = names if isinstance(names, tuple) else (names,)
    return math.prod(mesh.shape[name] for name in listed if name is not None)


def local_axes(leaf: object) -> tuple[str, ...]:
    """Mesh axes along which `leaf` is a per-device shard inside `shard_map`.

    With `check_vma=False`, and in a `pmap`, a leaf does not show its axes: it counts as
    whole.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not mesh.manual_axes:
        return ()
    varying = jax.typeof(leaf).manual_axis_type.varying
    return tuple(
        name for name in mesh.manual_axes if name in varying and mesh.shape[name] > 1
    )


def check_whole_leaf(
    owner: str, leaf: jax.typing.ArrayLike | jax.ShapeDtypeStruct, why: str
) -> None:
    """Raises if, inside a `shard_map`, a leaf is one device's part."""
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
    """Splits the axes of two shapes of equal size into runs of equal product."""
    i = j = 0
    while i < len(old) or j < len(new):
        old_start, new_start = i, j
        old_size = new_size = 1
        if i < len(old):
            old_size, i = old[i], i + 1
        else:
            j = len(new)
        while old_size != new_size:
            if new_size < old_size:
                new_size, j = new_size * new[j], j + 1
            else:
                old_size, i = old_size * old[i], i + 1
        yield list(range(old_start, i)), list(range(new_start, j))
