"""Calls of every transformation, report and rule of the catalogue."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import optax

import jaxreg
from experiments.kit.transformations import (
    TRANSFORMATIONS,
    Family,
    Needs,
    of_family,
)

PARAMS = {"body": {"bias": jnp.ones(2), "kernel": jnp.ones((3, 2))}}

REPORTS: dict[str, Callable[[Any, Any], Any]] = {
    "describe": jaxreg.describe,
    "summary": jaxreg.summary,
    "measure": jaxreg.measure,
    "max_strength": jaxreg.max_strength,
}

RULES: dict[str, Callable[[Any], Any]] = {
    "by_path": lambda p: jaxreg.by_path([("kernel$", p)]),
    "on_kernels": jaxreg.on_kernels,
}

EVERY = tuple(TRANSFORMATIONS)
WITH_REPORTS = (*EVERY, *REPORTS)
EVERYWHERE = (*WITH_REPORTS, *RULES)
PROXIMAL = tuple(
    name
    for name in of_family(Family.PROXIMAL)
    if TRANSFORMATIONS[name].needs is Needs.STEPS_PER_ENTRY
)
SUMS = of_family(Family.RUNNING_SUMS)
NORMAL_MAPS = of_family(Family.NORMAL_MAP)
TAILS = of_family(Family.LAST)
# The transformations whose state holds something.
WITH_STATE = tuple(
    name for name, row in TRANSFORMATIONS.items() if row.state is not optax.EmptyState
)


def speaker(way: str) -> str:
    """The function that the messages of a way name."""
    return TRANSFORMATIONS[way].speaker if way in TRANSFORMATIONS else way


def penalty(way: str, strength: Any = 0.1, axis: int = 0) -> Any:
    """A penalty on rows that the way takes."""
    if way in TRANSFORMATIONS:
        return TRANSFORMATIONS[way].example_penalty(strength, axis)
    return jaxreg.GroupLasso(strength, group_axis=axis)


def on_kernels(way: str) -> Any:
    return jaxreg.on_kernels(penalty(way))


def build(way: str, one: Any) -> Any:
    """The transformation or the rules, or what a report gives for `PARAMS`."""
    if way in REPORTS:
        return REPORTS[way](one, PARAMS)
    return RULES[way](one) if way in RULES else TRANSFORMATIONS[way].alone(one)


def use(way: str, one: Any, params: Any) -> Any:
    """The first update with gradients equal to the parameters, or the report."""
    return REPORTS[way](one, params) if way in REPORTS else first(way, one, params)


def first(way: str, one: Any, params: Any, grads: Any = None, state: Any = None) -> Any:
    """The updates of one step and the new state."""
    tx = TRANSFORMATIONS[way].alone(one)
    state = tx.init(params) if state is None else state
    return tx.update(params if grads is None else grads, state, params)
