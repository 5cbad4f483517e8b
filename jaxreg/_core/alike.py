"""Arrays of one kind handled together: programs grow with the kinds, not the arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp


def kinds_of(*columns: Sequence[jax.Array]) -> list[list[int]]:
    """The rows whose arrays have equal shapes, dtypes and shardings in every column."""
    kinds: dict[tuple[Any, ...], list[int]] = {}
    for row, arrays in enumerate(zip(*columns, strict=True)):
        kinds.setdefault(tuple(map(jax.typeof, arrays)), []).append(row)
    return list(kinds.values())


def stacked(arrays: Sequence[jax.Array], kinds: list[list[int]]) -> list[jax.Array]:
    """One array per kind, with a leading axis for its rows."""
    return [jnp.stack([arrays[row] for row in rows]) for rows in kinds]


def unstacked(stacks: Sequence[jax.Array], kinds: list[list[int]]) -> list[jax.Array]:
    """The arrays of `stacked`, in their order."""
    out: dict[int, jax.Array] = {}
    for rows, stack in zip(kinds, stacks, strict=True):
        out.update(zip(rows, stack, strict=True))
    return [out[row] for row in range(len(out))]


def per_array(stack: jax.Array) -> tuple[int, ...]:
    """The axes of a stack that are those of its arrays."""
    return tuple(range(1, stack.ndim))
