"""Frozen dataclasses as pytrees."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from jaxreg._core.messages import shown
from jaxreg._core.ranges import ABOVE_ONE, POSITIVE, UNIT_INTERVAL, check_fields

T = typing.TypeVar("T")
NamedResult = typing.TypeVar("NamedResult", bound=tuple[Any, ...])
Static = tuple[object, ...]  # The values of the static fields.
KeyAndChild = tuple[jax.tree_util.GetAttrKey, object]


def static(default: object = dataclasses.MISSING) -> Any:
    """A field that is part of the tree structure: a size, an axis, a pattern."""
    return dataclasses.field(default=default, metadata={"static": True})


def positive(default: object = dataclasses.MISSING) -> Any:
    """A field for a number > 0, such as a knot; other numbers may be 0."""
    return dataclasses.field(default=default, metadata={"range": POSITIVE})


def above_one(default: object = dataclasses.MISSING) -> Any:
    """A field for a number > 1, such as the ratio of two knots."""
    return dataclasses.field(default=default, metadata={"range": ABOVE_ONE})


def unit_interval(default: object = dataclasses.MISSING) -> Any:
    """A field for a number from 0 to 1, such as a share."""
    return dataclasses.field(default=default, metadata={"range": UNIT_INTERVAL})


def signed(default: object = dataclasses.MISSING) -> Any:
    """A field for a number, array or tree of arrays of any sign, such as a bound."""
    return dataclasses.field(default=default, metadata={"signed": True, "array": True})


def array(default: object = dataclasses.MISSING) -> Any:
    """A field for a number, array or tree of arrays >= 0, such as weights."""
    return dataclasses.field(default=default, metadata={"array": True})


def derived(default: object = dataclasses.MISSING) -> Any:
    """A field for numbers that were checked where they come from."""
    return dataclasses.field(default=default, metadata={"derived": True})


@typing.dataclass_transform(
    frozen_default=True,
    field_specifiers=(static, positive, unit_interval, signed, array, derived),
)
def pytree_dataclass(cls: type[T]) -> type[T]:
    """Makes a class a frozen dataclass and a pytree; numbers are leaves.

    `jax.tree_util.register_dataclass` would not do: it gives `L1(s)` and `L2(s)`, which
    have the same field names, equal structures, so that a jitted function may run the
    code compiled for the other. Arrays among the numbers compare entry by entry,
    and are shown by dtype and shape. `docs/write_your_own.md` has a whole penalty.

    A number must be finite and >= 0, or each number of a grid for `jax.vmap`: the
    constructor raises otherwise. JAX rebuilds objects past it, with tracers and
    placeholders; so write the axes of `jax.vmap` as `jax.tree.map(lambda _: 0, it)`.

    >>> import jax, jaxreg
    >>> @jaxreg.pytree_dataclass
    ... class Pair:
    ...     first: float
    ...     second: float
    >>> jax.tree.map(lambda number: 2 * number, Pair(1.0, 2.0))
    Pair(first=2.0, second=4.0)
    """
    if not isinstance(cls, type):
        raise TypeError(f"pytree_dataclass: cls is {shown(cls)}; allowed: a class")
    has_own_constructor = "__init__" in cls.__dict__
    _check_when_constructed(cls)
    frozen: Any = dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)
    fields = dataclasses.fields(frozen)
    data = [field.name for field in fields if "static" not in field.metadata]
    meta = [field.name for field in fields if "static" in field.metadata]
    names = {field.name for field in fields if field.init}
    keys = [jax.tree_util.GetAttrKey(name) for name in data]

    def flatten(penalty: object) -> tuple[list[object], Static]:
        values = vars(penalty)
        return [values[name] for name in data], tuple(values[name] for name in meta)

    def flatten_with_keys(penalty: object) -> tuple[list[KeyAndChild], Static]:
        children, static_values = flatten(penalty)
        return list(zip(keys, children, strict=True)), static_values

    def unflatten(static_values: Static, children: Iterable[object]) -> object:
        penalty = object.__new__(frozen)
        every = (*data, *meta)
        vars(penalty).update(zip(every, (*children, *static_values), strict=True))
        return penalty

    def equal(self: object, other: object) -> bool:
        if type(other) is not frozen:
            return NotImplemented
        treedef: Any  # To mypy, JAX's type of structures has no `==`.
        ours, treedef = jax.tree.flatten(self)
        theirs, other_treedef = jax.tree.flatten(other)
        return treedef == other_treedef and all(map(_is_same, ours, theirs))

    def show(self: object) -> str:
        pairs = (f"{f.name}={_short(getattr(self, f.name))}" for f in fields)
        return f"{frozen.__name__}({', '.join(pairs)})"

    def hash_of(self: object) -> int:
        return hash((frozen, flatten(self)[1]))

    construct = frozen.__init__

    @functools.wraps(construct)
    def known(self: object, *args: object, **keywords: object) -> None:
        if not keywords.keys() <= names:
            raise TypeError(_unknown_arguments(frozen, keywords))
        construct(self, *args, **keywords)

    if not has_own_constructor:
        frozen.__init__ = known
    frozen.__eq__, frozen.__repr__, frozen.__hash__ = equal, show, hash_of
    jax.tree_util.register_pytree_with_keys(
        frozen, flatten_with_keys, unflatten, flatten
    )
    return frozen


def _check_when_constructed(cls: type) -> None:
    """Checks the numbers of a new object; JAX rebuilds it past its constructor.

    So it may hold tracers and placeholders, but none that a user wrote.
    """
    check_rest = getattr(cls, "__post_init__", None)

    def check(self: object) -> None:
        check_fields(self, grids=True)
        if check_rest is not None:
            check_rest(self)

    setattr(cls, "__post_init__", check)  # noqa: B010  # mypy: a type has no such name


def _unknown_arguments(cls: type, keywords: Iterable[str]) -> str:
    """The message for keywords that a class does not have, with those that it has."""
    arguments = inspect.signature(cls).parameters
    unknown = ", ".join(repr(name) for name in keywords if name not in arguments)
    makers = [name for name, member in vars(cls).items() if type(member) is classmethod]
    calls = {cls.__name__: arguments} | {
        f"{cls.__name__}.{name}": inspect.signature(getattr(cls, name)).parameters
        for name in makers
    }
    allowed = ", ".join(f"{name}({', '.join(names)})" for name, names in calls.items())
    noun = "arguments" if "', '" in unknown else "argument"
    return f"{cls.__name__} has no {noun} {unknown}; allowed: {allowed}"


def _is_same(left: Any, right: Any) -> bool:
    if left is right:
        return True
    if not (is_array(left) or is_array(right)):
        return bool(left == right)
    return jnp.shape(left) == jnp.shape(right) and bool((left == right).all())


def _short(content: object) -> str:
    def shown(leaf: object) -> object:
        return _Shown(leaf) if is_array(leaf) else leaf

    return repr(jax.tree.map(shown, content, is_leaf=dataclasses.is_dataclass))


def outline(result: tuple[Any, ...]) -> str:
    """A named tuple in one line, its arrays as dtype and shape."""
    names = type(result)._fields  # type: ignore[attr-defined]  # NamedTuple is no type
    pairs = (f"{n}={_short(x)}" for n, x in zip(names, result, strict=True))
    return f"{type(result).__name__}({', '.join(pairs)})"


def text_of(
    result: NamedResult,
    lines: Callable[[NamedResult], tuple[str, dict[str, str]]],
    leaf: Any,
    rank: int,
) -> str:
    """The name of a result, a title and aligned rows, or else its outline.

    An outline it is where there are no values to read, as in a trace, and where `leaf`
    has more axes than `rank`: the result holds many of its kind, from `vmap`.
    """
    if not _is_readable(result) or jnp.ndim(leaf) > rank:
        return outline(result)
    title, rows = lines(result)
    width = max(map(len, rows))
    parts = [f"{type(result).__name__}: {title}"]
    return "\n".join(parts + [f"{name:{width}}  {text}" for name, text in rows.items()])


def _is_readable(tree: Any) -> bool:
    """True if all leaves are numbers with values on this host."""
    return all(map(_has_value, jax.tree.leaves(tree)))


def _has_value(leaf: object) -> bool:
    if not isinstance(leaf, jax.Array):
        return isinstance(leaf, typing.get_args(jax.typing.ArrayLike))
    if isinstance(leaf, jax.core.Tracer):
        return False
    return leaf.is_fully_addressable or leaf.is_fully_replicated


def is_array(leaf: object) -> typing.TypeGuard[jax.Array]:
    """True for an array of JAX or NumPy that has at least one axis."""
    # ArrayLike names NumPy's types; a list or a placeholder is not among them.
    kinds = (jax.Array, *typing.get_args(jax.typing.ArrayLike))
    return isinstance(leaf, kinds) and jnp.ndim(leaf) > 0


class _Shown:
    """An array, shown by dtype and shape."""

    def __init__(self, leaf: jax.Array) -> None:
        self.text = f"{leaf.dtype}{list(leaf.shape)}"

    def __repr__(self) -> str:
        return self.text
