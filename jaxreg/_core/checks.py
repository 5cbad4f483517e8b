"""Validation of user input: out-of-range numbers and unsupported leaves.

Only concrete numbers are checked: JAX rebuilds penalties with tracers and
placeholders inside, so constructors check static fields alone.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Mapping
from typing import TypeGuard

import jax
import jax.numpy as jnp

from jaxreg._core.leafwise import no_prox
from jaxreg._core.messages import shown
from jaxreg._core.penalty import Leaf, Number, Penalty, Tree, is_real_floating
from jaxreg._core.pytree import jax_number
from jaxreg._core.shards import COUPLED, check_whole_leaf, local_axes

# The fields that hold penalties.
_INNER = {"penalty", "penalties"}

# The largest int32: JAX has no wider integers unless x64 is enabled.
MOST = 2**31 - 1

# ArrayLike names NumPy's types; a tracer is a jax.Array and not among them.
_NUMBERS = (jax.Array, *typing.get_args(jax.typing.ArrayLike))


def check_numbers(penalty: Penalty) -> None:
    """Raises if `penalty` is not a penalty or holds an invalid concrete number."""
    if not isinstance(penalty, Penalty):
        raise TypeError(
            f"penalty is {shown(penalty)}; allowed: a jaxreg penalty, as "
            "jaxreg.L1(1e-4) or jaxreg.by_path([(pattern, penalty), ...])"
            f"{_mend(penalty)}"
        )
    if not dataclasses.is_dataclass(penalty) or jax.tree_util.all_leaves([penalty]):
        raise TypeError(
            f"penalty is of class {type(penalty).__name__}, whose numbers jax cannot "
            "see; decorate the class with jaxreg.pytree_dataclass"
        )
    for field in dataclasses.fields(penalty):
        if "static" in field.metadata:
            continue
        content = getattr(penalty, field.name)
        inner = content if isinstance(content, tuple) else (content,)
        if field.name in _INNER or isinstance(content, Penalty):
            for item in inner:
                check_numbers(item)
        else:
            _check_field(f"{field.name} of {shown(penalty)}", content, field.metadata)


def check_order(penalty: object, params: Tree) -> None:
    """Raises if the penalty and the parameters are given in the wrong order."""
    if isinstance(params, Penalty) and not isinstance(penalty, Penalty):
        raise TypeError(
            f"penalty is {shown(penalty)} and {shown(params)} stands behind it: the "
            "arguments are the other way round; allowed: the penalty first, as in "
            "jaxreg.measure(penalty, params)"
        )


def _mend(content: object) -> str:
    """What to write in place of a container of penalties."""
    items = list(content) if isinstance(content, tuple | list) else []
    if items and all(isinstance(item, Penalty) for item in items):
        return "; add up penalties of the same leaves, first + second"
    if items and all(isinstance(item, tuple | list) for item in items):
        return "; give the rules to jaxreg.by_path(rules)"
    if isinstance(content, dict):
        return "; give the rules to jaxreg.by_path(rules.items())"
    return ""


def check_prox(transform: str, penalty: Penalty) -> None:
    """Raises if the penalty has no prox."""
    if not penalty.facts.has_prox:
        raise TypeError(f"{transform}: {no_prox(penalty)}")


def check_params(transform: str, params: Tree | None) -> None:
    """Raises if an update was called without the parameters."""
    if params is None:
        raise ValueError(
            f"{transform}: update was called without params, and the penalty is a "
            "function of them; write updates, state = tx.update(grads, state, params); "
            "for an Equinox model params is eqx.filter(model, eqx.is_inexact_array)"
        )


def check_leaf(penalty: Penalty, name_of: Callable[[], str], leaf: object) -> None:
    """Raises if the penalty cannot take a leaf; `name_of()` is its path."""
    kind = f"dtype {jnp.result_type(leaf)}" if is_array(leaf) else f"type {type(leaf)}"
    if not is_array(leaf) or not is_real_floating(leaf):
        raise TypeError(
            f"{shown(penalty)} on leaf {name_of()!r} of {kind}: allowed are real "
            "floating leaves of 16 bits or more. Leave this one free with by_path"
        )
    reason = penalty.layout.refusal(jnp.shape(leaf))
    if reason is not None:
        raise ValueError(
            f"{shown(penalty)} on leaf {name_of()!r} of shape {jnp.shape(leaf)}: the "
            f"leaf {reason}. Choose leaves with by_path"
        )
    if not penalty.facts.is_separable and local_axes(leaf):
        check_whole_leaf(f"{shown(penalty)} on leaf {name_of()!r}", leaf, COUPLED)


def check_countable(owner: str, total: int) -> None:
    """Raises if there are more entries or groups than an int32 can count."""
    if total > MOST:
        raise ValueError(
            f"{owner}: {total} entries or groups are counted together, in 32 bits; "
            f"allowed: up to {MOST}. Take groups, or several rules of fewer leaves"
        )


def check_positive(name: str, number: Number) -> None:
    """Raises if a number is not a finite scalar > 0, as far as it is concrete."""
    check_number(name, number)
    if is_known(lambda x: x <= 0, number):
        raise ValueError(f"{name} is {number}; allowed: a number above 0")


def check_number(name: str, number: object) -> None:
    """Raises if `number` is not a finite scalar >= 0, as far as it is concrete."""
    if not isinstance(number, _NUMBERS) or not _is_real(number):
        hint = "; a function of the step count belongs into schedule="
        raise TypeError(
            f"{name} is {shown(number)}; allowed: a real number >= 0"
            f"{hint if callable(number) else ''}"
        )
    if jnp.ndim(number):
        raise ValueError(
            f"{name} has shape {jnp.shape(number)}; allowed: one number. For a grid of "
            "strengths use jax.vmap over the penalty"
        )
    is_concrete = not isinstance(number, jax.core.Tracer)
    if is_concrete and not 0 <= float(number) < float("inf"):
        raise ValueError(f"{name} is {number}; allowed: a finite number >= 0")


def is_array(leaf: object) -> TypeGuard[Leaf | jax.ShapeDtypeStruct]:
    """True if a leaf is an array, a number, or the shape and dtype of an array."""
    return isinstance(leaf, (*_NUMBERS, jax.ShapeDtypeStruct))


def is_number(content: object) -> bool:
    """True for one real number or a tracer of one."""
    return isinstance(content, _NUMBERS) and _is_real(content) and not jnp.ndim(content)


def is_known(condition: Callable[..., Leaf], *numbers: Tree) -> bool:
    """True if a condition holds anywhere; False if a number is a tracer."""
    if any(isinstance(number, jax.core.Tracer) for number in jax.tree.leaves(numbers)):
        return False
    # Inside a trace, operations on concrete numbers would be traced too.
    with jax.ensure_compile_time_eval():
        return bool(jnp.any(condition(*map(jax_number, numbers))))


def _check_field(name: str, content: Tree, rules: Mapping[str, object]) -> None:
    if "array" not in rules:
        check_number(name, content)
        if "positive" in rules and is_known(lambda x: x <= 0, content):
            raise ValueError(f"{name} is {content}; allowed: a finite number > 0")
        return
    for part in jax.tree.leaves(content):
        if not isinstance(part, _NUMBERS) or not _is_real(part):
            raise TypeError(
                f"{name} holds {shown(part)}; allowed: real numbers, arrays or trees "
                "of them"
            )
        is_invalid = jnp.isnan if "signed" in rules else _is_invalid_weight
        if is_known(is_invalid, part):
            allowed = "numbers" if "signed" in rules else "finite numbers >= 0"
            raise ValueError(f"{name} holds {shown(part)}; allowed: {allowed}")


def _is_invalid_weight(part: Leaf) -> jax.Array:
    return ~(jnp.greater_equal(part, 0) & jnp.isfinite(part))


def _is_real(number: Leaf | jax.ShapeDtypeStruct) -> bool:
    dtype = jnp.result_type(number)
    return jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.floating)
