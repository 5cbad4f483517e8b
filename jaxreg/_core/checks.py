"""Validation of what public functions are given: penalties, parameters, leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxreg._core.leafwise import Elementwise, no_prox
from jaxreg._core.messages import shown
from jaxreg._core.penalty import Leaf, Penalty, Tree, misfit_of_dtype
from jaxreg._core.ranges import INNER, check_fields
from jaxreg._core.shards import COUPLED, check_whole_leaf, local_axes

# The largest int32: JAX has no wider integers unless x64 is enabled.
MOST = 2**31 - 1


def check_penalty(penalty: Penalty, **others: object) -> None:
    """Raises if `penalty` is not a penalty whose numbers JAX can see.

    `others` are arguments beside it, one of which may be the penalty by mistake.
    """
    check_order(penalty, **others)
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
        content = getattr(penalty, field.name)
        if field.name in INNER or isinstance(content, Penalty):
            for item in content if isinstance(content, tuple) else (content,):
                check_penalty(item)


def check_numbers(penalty: Penalty, **others: object) -> None:
    """Raises as `check_penalty`, or if a penalty holds an invalid concrete number.

    One that was constructed has been checked; JAX may have rebuilt it since, and where
    it was constructed its strength may have been a grid, for `jax.vmap`.
    """
    check_penalty(penalty, **others)
    check_fields(penalty)


def check_order(penalty: object, **others: object) -> None:
    """Raises if a penalty was given as another argument, in the wrong order."""
    if isinstance(penalty, Penalty):
        return
    for name, other in others.items():
        if isinstance(other, Penalty):
            raise TypeError(
                f"penalty is {shown(penalty)} and {name} is {shown(other)}: the "
                "arguments are the other way round; allowed: the penalty as penalty="
            )


def check_elementwise(call: str, penalty: object, **others: object) -> None:
    """Raises if `penalty` is not elementwise, or as `check_penalty`."""
    check_order(penalty, **others)
    if not isinstance(penalty, Elementwise):
        raise TypeError(
            f"{call}({shown(penalty)}): allowed is an elementwise penalty, such as "
            "L1(1e-3)"
        )
    check_penalty(penalty)


def _mend(content: object) -> str:
    """Advice on what to write in place of a container of penalties."""
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


def check_leaf(penalty: Penalty, name_of: Callable[[], str], leaf: Leaf) -> None:
    """Raises if the penalty cannot take a leaf; `name_of()` is its path."""
    misfit = misfit_of_dtype(leaf)
    if misfit is not None:
        raise TypeError(f"{shown(penalty)} on leaf {name_of()!r} {misfit}")
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
