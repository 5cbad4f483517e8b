"""Frozen dataclasses as pytrees."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

import jax
import jax.numpy as jnp

T = typing.TypeVar("T")


def static(default: Any = dataclasses.MISSING) -> Any:
    """A dataclass field that is part of the structure: a size, an axis, a pattern."""
    return dataclasses.field(default=default, metadata={"static": True})


def positive(default: Any = dataclasses.MISSING) -> Any:
    """A number that must be above 0, as a knot; other numbers may be 0."""
    return dataclasses.field(default=default, metadata={"positive": True})


def signed(default: Any = dataclasses.MISSING) -> Any:
    """A number, array or tree of arrays of any sign, as a bound or a reference."""
    return dataclasses.field(default=default, metadata={"signed": True, "array": True})


def array(default: Any = dataclasses.MISSING) -> Any:
    """A number, array or tree of arrays >= 0, as weights."""
    return dataclasses.field(default=default, metadata={"array": True})


@typing.dataclass_transform(
    frozen_default=True, field_specifiers=(static, positive, signed, array)
)
def pytree_dataclass(cls: type[T]) -> type[T]:
    """Makes a class a frozen dataclass and a pytree; numbers are leaves.

    `jax.tree_util.register_dataclass` would not do: it gives `L1(s)` and `L2(s)`, which
    have the same field names, equal structures, and a jitted function now and then runs
    the code compiled for the other. Arrays among the numbers compare entry by entry,
    and are shown by dtype and shape. `docs/write_your_own.md` has a whole penalty.

    >>> import jax, jaxreg
    >>> @jaxreg.pytree_dataclass
    ... class Pair:
    ...     first: float
    ...     second: float
    >>> jax.tree.map(lambda number: 2 * number, Pair(1.0, 2.0))
    Pair(first=2.0, second=4.0)
    """
    frozen: Any = dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)
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

    def equal(self: Any, other: Any) -> Any:
        if type(other) is not frozen:
            return NotImplemented
        (ours, treedef), (theirs, other_treedef) = map(_flat, (self, other))
        return treedef == other_treedef and all(map(_is_same, ours, theirs))

    def show(self: Any) -> str:
        pairs = (f"{f.name}={_short(getattr(self, f.name))}" for f in fields)
        return f"{frozen.__name__}({', '.join(pairs)})"

    def hash_of(self: Any) -> int:
        return hash((frozen, flatten(self)[1]))

    frozen.__eq__, frozen.__repr__, frozen.__hash__ = equal, show, hash_of
    jax.tree_util.register_pytree_with_keys(
        frozen, flatten_with_keys, unflatten, flatten
    )
    return frozen


def _flat(tree: Any) -> tuple[list[Any], Any]:
    return jax.tree.flatten(tree)


def _is_same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if not (is_array(one) or is_array(other)):
        return bool(one == other)
    return jnp.shape(one) == jnp.shape(other) and bool((one == other).all())


def _short(content: Any) -> str:
    def one(leaf: Any) -> Any:
        return _Shown(leaf) if is_array(leaf) else leaf

    return repr(jax.tree.map(one, content, is_leaf=_is_penalty))


def is_array(leaf: Any) -> bool:
    """Whether a leaf is an array of at least one axis, of JAX or NumPy."""
    # ArrayLike names NumPy's types; a list or a placeholder is not among them.
    kinds = (jax.Array, *typing.get_args(jax.typing.ArrayLike))
    return isinstance(leaf, kinds) and jnp.ndim(leaf) > 0


def _is_penalty(node: Any) -> bool:
    return dataclasses.is_dataclass(node)


class _Shown:
    """An array by dtype and shape."""

    def __init__(self, leaf: Any) -> None:
        self.text = f"{leaf.dtype}{list(leaf.shape)}"

    def __repr__(self) -> str:
        return self.text
