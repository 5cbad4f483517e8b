"""Frozen dataclasses as pytrees."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

import jax

T = typing.TypeVar("T")


def static() -> Any:
    """A dataclass field that is part of the structure: a size, an axis, a pattern."""
    return dataclasses.field(metadata={"static": True})


@typing.dataclass_transform(frozen_default=True, field_specifiers=(static,))
def pytree_dataclass(cls: type[T]) -> type[T]:
    """Makes a class a frozen dataclass and a pytree; numbers are leaves.

    `jax.tree_util.register_dataclass` would not do: it gives `L1(s)` and `L2(s)`, which
    have the same field names, equal structures, and a jitted function now and then runs
    the code compiled for the other.
    """
    frozen: Any = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(frozen)
    data = [field.name for field in fields if "static" not in field.metadata]
    meta = [field.name for field in fields if "static" in field.metadata]
    keys = [jax.tree_util.GetAttrKey(name) for name in data]

    def flatten(penalty: Any) -> tuple[Any, Any]:
        values = vars(penalty)
        return [values[name] for name in data], tuple(values[name] for name in meta)

    def flatten_with_keys(penalty: Any) -> tuple[Any, Any]:
        children, static_values = flatten(penalty)
        return list(zip(keys, children, strict=True)), static_values

    def unflatten(static_values: Any, children: Any) -> Any:
        penalty = object.__new__(frozen)
        names = (*data, *meta)
        vars(penalty).update(zip(names, (*children, *static_values), strict=True))
        return penalty

    jax.tree_util.register_pytree_with_keys(
        frozen, flatten_with_keys, unflatten, flatten
    )
    return frozen
