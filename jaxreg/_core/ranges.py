"""Ranges of numbers: which concrete ones an argument or a field may be.

Tracers pass, since their values are not known: no check costs anything under jit.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Callable
from typing import Any, NamedTuple, TypeGuard

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxreg._core.messages import shown

# ArrayLike names NumPy's types; a tracer is a jax.Array and not among them.
_NUMBERS = (jax.Array, *typing.get_args(ArrayLike))

# The fields that hold penalties.
INNER = {"penalty", "penalties"}


class Range(NamedTuple):
    """A range of numbers, in words and as a condition on a number or array."""

    words: str
    holds: Callable[[Any], Any]
    noun: str = "a finite number"


NOT_NEGATIVE = Range(">= 0", lambda x: (x >= 0) & (x < math.inf))
POSITIVE = Range("> 0", lambda x: (x > 0) & (x < math.inf))
ABOVE_ONE = Range("> 1", lambda x: (x > 1) & (x < math.inf))
# An infinite step is the limit of large ones, as the zero of L1.
STEP = Range(">= 0", lambda x: x >= 0, "a number")
SHARE = Range("from 0 to below 1", lambda x: (x >= 0) & (x < 1))
UNIT_INTERVAL = Range("from 0 to 1", lambda x: (x >= 0) & (x <= 1))
BETWEEN_0_AND_1 = Range("between 0 and 1", lambda x: (x > 0) & (x < 1))

_Fault = tuple[type[Exception], str]
"""The type of an error, and its message behind the name of the number."""


def check_number(
    name: str,
    number: object,
    allowed: Range = NOT_NEGATIVE,
    *,
    grids: bool = False,
) -> None:
    """Raises if `number` is not one number in a range, as far as it is concrete.

    With `grids` it may be an array of such numbers, for `jax.vmap`.
    """
    fault = _fault(number, allowed, grids)
    if fault is not None:
        kind, text = fault
        raise kind(f"{name} {text}")


def check_positive(name: str, number: object) -> None:
    """Raises if a number is not a finite scalar > 0, as far as it is concrete."""
    check_number(name, number, POSITIVE)


def check_share(name: str, number: object) -> None:
    """Raises if a number is not from 0 to below 1, as far as it is concrete."""
    check_number(name, number, SHARE)


def real_array(
    name: str, content: Any, dtype: jax.typing.DTypeLike | None = None
) -> jax.Array:
    """Converts real numbers, truth values or arrays of them to an array, or raises."""
    try:
        # Not of text, of which NumPy has arrays: result_type raises.
        is_complex = is_array(content) and jnp.issubdtype(
            jnp.result_type(content), jnp.complexfloating
        )
        is_left_out = is_complex or isinstance(content, str)
        array = None if is_left_out else jnp.asarray(content, dtype)
    except (TypeError, ValueError):
        array = None
    if array is None:
        raise TypeError(f"{name} is {shown(content)}; allowed: real numbers, an array")
    return array


def check_step(step: object) -> None:
    """Raises if a step is not a number >= 0, or a tree has a negative step.

    A NaN in a tree shows as a NaN in the entries that it belongs to.
    """
    if _is_leaf(step) and not (is_array(step) and jnp.ndim(step)):
        check_number("step", step, STEP)
        return
    for part in jax.tree.leaves(step):
        if not is_array(part) or not _is_real(part):
            raise TypeError(
                f"step holds {shown(part)}; allowed: real numbers >= 0, or arrays"
            )
        if _is_on_host(part) and not _all(part, _is_step):
            raise ValueError(f"step holds {shown(part)}; allowed: numbers >= 0")


def check_fields(owner: object, *, grids: bool = False, arrays: bool = True) -> None:
    """Raises if a number that a penalty holds is out of range.

    With `grids`, what should be one number may be an array of numbers in its range, for
    `jax.vmap`. Without `arrays`, fields that are arrays are not checked.
    """
    kind = type(owner)
    for field in _fields(kind):  # type: ignore[arg-type]  # it has a hash
        content, rules = getattr(owner, field.name), field.metadata
        fault = None
        inner = content if isinstance(content, tuple) else (content,)
        if field.name in INNER or all(map(dataclasses.is_dataclass, inner)):
            for penalty in inner:
                check_fields(penalty, grids=grids, arrays=arrays)
            continue
        if content is None and field.default is None:
            continue
        if "array" not in rules:
            fault = _fault(content, rules.get("range", NOT_NEGATIVE), grids)
        elif arrays:
            fault = _array_fault(content, "signed" in rules)
        if fault is not None:
            error, text = fault
            raise error(f"{field.name} of {shown(owner)} {text}")


def is_array(leaf: object) -> TypeGuard[jax.Array | jax.ShapeDtypeStruct]:
    """True if a leaf is an array, a number, or the shape and dtype of an array."""
    return isinstance(leaf, (*_NUMBERS, jax.ShapeDtypeStruct))


def is_number(content: object) -> bool:
    """True for one real number or a tracer of one."""
    return isinstance(content, _NUMBERS) and _is_real(content) and not jnp.ndim(content)


def is_known(condition: Callable[..., ArrayLike], *numbers: Any) -> bool:
    """True if a condition holds anywhere; False if a number is a tracer."""
    if any(isinstance(number, jax.core.Tracer) for number in jax.tree.leaves(numbers)):
        return False
    # Inside a trace, operations on concrete numbers would be traced too.
    with jax.ensure_compile_time_eval():
        return bool(jnp.any(condition(*map(jax_number, numbers))))


def jax_number(number: Any) -> Any:
    """JAX's array for NumPy's: a float64 may be cached for a trace in float32."""
    is_plain = type(number) in (int, float, bool) or isinstance(number, jax.Array)
    return number if is_plain else jnp.asarray(number)


@functools.cache
def _fields(owner: type) -> list[dataclasses.Field[Any]]:
    """The fields that hold numbers or penalties."""
    fields = dataclasses.fields(owner) if dataclasses.is_dataclass(owner) else ()
    return [f for f in fields if not {"static", "derived"} & {*f.metadata}]


def _fault(number: object, allowed: Range, grids: bool = False) -> _Fault | None:
    # The usual case, at no cost.
    if type(number) is float and allowed.holds(number):
        return None
    if not isinstance(number, _NUMBERS) or not _is_real(number):
        hint = "; pass a function of the step count as schedule="
        return TypeError, (
            f"is {shown(number)}; allowed: a real number {allowed.words}"
            f"{hint if callable(number) else ''}"
        )
    if jnp.ndim(number) and not grids:
        return ValueError, (
            f"has shape {jnp.shape(number)}; allowed: one number. For a grid "
            "of numbers use jax.vmap"
        )
    if isinstance(number, jax.core.Tracer):
        return None
    if not _all(number, allowed.holds):
        return ValueError, f"is {number}; allowed: {allowed.noun} {allowed.words}"
    return None


def _array_fault(content: object, is_signed: bool) -> _Fault | None:
    for part in [None] if content is None else jax.tree.leaves(content):
        if not isinstance(part, _NUMBERS) or not _is_real(part):
            return TypeError, (
                f"holds {shown(part)}; allowed: real numbers, arrays or trees of them"
            )
        if is_known(jnp.isnan if is_signed else _is_invalid_weight, part):
            allowed = "numbers" if is_signed else "finite numbers >= 0"
            return ValueError, f"holds {shown(part)}; allowed: {allowed}"
    return None


def _is_invalid_weight(part: jax.Array) -> jax.Array:
    return ~(jnp.greater_equal(part, 0) & jnp.isfinite(part))


def _all(number: Any, condition: Callable[[Any], Any]) -> bool:
    """True if a condition holds for a concrete number, or everywhere in an array.

    It is evaluated by NumPy: eagerly, JAX takes 0.1 ms for an operation.
    """
    if isinstance(number, int | float):
        return bool(condition(number))
    return bool(condition(number.__array__()).all())


def _is_step(number: Any) -> Any:
    return (number >= 0) | (number != number)


def _is_leaf(content: object) -> bool:
    return jax.tree_util.all_leaves([content])


def _is_on_host(number: object) -> bool:
    """True for concrete numbers that need no copy from an accelerator."""
    if isinstance(number, jax.core.Tracer | jax.ShapeDtypeStruct):
        return False
    if not isinstance(number, jax.Array):
        return True
    return all(device.platform == "cpu" for device in number.devices()) and (
        number.is_fully_addressable
    )


def _is_real(number: object) -> bool:
    if isinstance(number, jax.Array | jax.ShapeDtypeStruct):
        return _is_real_dtype(number.dtype)
    return _is_real_dtype(jnp.result_type(number))


@functools.cache
def _is_real_dtype(dtype: jax.typing.DTypeLike) -> bool:
    return jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating)
