"""Bad arguments of the methods of every penalty and constraint.

Each row is a test and a line of docs/bad_input.md, run for a penalty of each kind of
the law table. The methods are those of `Penalty`, found by introspection.
"""

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg
from jaxreg.rules.by_path import ByPath
from tests.laws.row import Row as Law
from tests.laws.row import cast
from tests.laws.table import ROWS, is_first_of_its_kind
from tests.system.bad_input.arguments import KINDS, STEPS, Bad, Kind
from tests.system.bad_input.inputs import Row, pattern_of

Change = Callable[[Law], Any]
"""A bad argument for the penalty of a law."""

LAWS = {row.name: row for row in ROWS if is_first_of_its_kind(row)}
# Lifts pass trees of numbers through these: `weighted` has checked them.
NOT_CHECKED = {"distribute", "weigh_units"}
METHODS = [
    name
    for name, method in vars(jaxreg.Penalty).items()
    if inspect.isfunction(method) and not name.startswith("_")
    if name not in NOT_CHECKED
]
KEPT = "refused before anything is computed; under jit tracers pass"


def good(law: Law) -> dict[str, Any]:
    """An argument of each name that the methods of a penalty take."""
    params = cast(law.params(0), "float32")
    return {
        "params": params,
        "grads": params,
        "latent": params,
        "step": 0.5,
        "width": 0.05,
    }


def arguments_of(penalty: jaxreg.Penalty, method: str) -> list[str]:
    parameters = inspect.signature(getattr(penalty, method)).parameters.values()
    return [each.name for each in parameters]


def refuses(
    penalty: jaxreg.Penalty,
    arguments: dict[str, Any],
    methods: Iterable[str],
    error: type[Exception],
    message: str,
) -> None:
    for name in methods:
        own = {each: arguments[each] for each in arguments_of(penalty, name)}
        with pytest.raises(error, match=pattern_of(message)):
            getattr(penalty, name)(**own)


def row_of(
    given: str,
    argument: str,
    error: type[Exception],
    message: str,
    *changes: Change,
    methods: Iterable[str] = METHODS,
    laws: Iterable[str] = LAWS,
) -> Row:
    """The row of an argument that each change spoils, in every method that has it."""

    def check(way: str) -> None:
        penalty, arguments = LAWS[way].penalty, good(LAWS[way])
        having = [m for m in methods if argument in arguments_of(penalty, m)]
        for change in changes:
            refuses(
                penalty,
                arguments | {argument: change(LAWS[way])},
                having,
                error,
                message,
            )

    having = [m for m in methods if argument in arguments_of(jaxreg.L1(1.0), m)]
    of = f"`{argument}` of {', '.join(f'`{name}`' for name in having)}"
    happens = f"{error.__name__}: `{message}`"
    return Row(given, tuple(laws), happens, KEPT, check, is_slow=True, of=of)


def params_of(law: Law) -> dict[str, Any]:
    return cast(law.params(0), "float32")


def with_leaf(change: Callable[[Any], Any]) -> Change:
    """The parameters of a law with their largest penalised leaf changed."""

    def changed(law: Law) -> Any:
        params = params_of(law)
        penalised = set(params) - set(law.free)
        # Of equal sizes the longest first axis, since `leaf[:1]` has to be another.
        name = max(penalised, key=lambda name: (params[name].size, params[name].shape))
        return params | {name: change(params[name])}

    return changed


def without_a_leaf(law: Law) -> Any:
    params = params_of(law)
    return {name: leaf for name, leaf in params.items() if name != max(params)}


def fixed(content: Any) -> Change:
    return lambda law: content


def scalars(argument: str, kind: Kind) -> Iterable[Row]:
    """The rows of a number, with the bad contents that raise the same together."""
    alike: dict[tuple[type[Exception], str], list[Bad]] = {}
    for bad in kind.bads:
        if not isinstance(bad.content, dict):
            message = bad.message.replace("{argument}", argument)
            alike.setdefault((bad.error, message), []).append(bad)
    for (error, message), bads in alike.items():
        given = f"{', '.join(bad.given for bad in bads)} as {kind.words}"
        yield row_of(given, argument, error, message, *(fixed(b.content) for b in bads))


def number_names(penalty: jaxreg.Penalty) -> set[str]:
    """The fields of a penalty, and of what it is made of, that hold one number."""
    out = set()
    for field in dataclasses.fields(penalty):
        content = getattr(penalty, field.name)
        for inner in content if isinstance(content, tuple) else (content,):
            if isinstance(inner, jaxreg.Penalty):
                out |= number_names(inner)
        if content is not None and not {"static", "array"} & set(field.metadata):
            out.add(field.name)
    return out - {"penalty", "penalties"}


def rebuilt(law: Law, change: Callable[[Any], Any]) -> jaxreg.Penalty:
    """The penalty of a law with its numbers changed, past its constructor."""
    names = number_names(law.penalty)

    def changed(path: Any, number: Any) -> Any:
        return change(number) if getattr(path[-1], "name", "") in names else number

    return jax.tree_util.tree_map_with_path(changed, law.penalty)


def row_of_numbers(
    given: str, error: type[Exception], message: str, change: Callable[[Any], Any]
) -> Row:
    def check(way: str) -> None:
        penalty = rebuilt(LAWS[way], change)
        refuses(penalty, good(LAWS[way]), METHODS, error, message)

    laws = tuple(name for name, law in LAWS.items() if number_names(law.penalty))
    happens = f"{error.__name__}: `{message}`"
    of = "every method of a penalty"
    return Row(given, laws, happens, KEPT, check, is_slow=True, of=of)


# A part of their leaves has another shape than the whole.
WITH_PARTS = [
    name
    for name, law in LAWS.items()
    if any(leaf.shape != leaf[:1].shape for leaf in jax.tree.leaves(law.params(0)))
]
WITH_PROX = [name for name, law in LAWS.items() if law.has_prox]
ONE_RULE = [name for name in WITH_PROX if not isinstance(LAWS[name].penalty, ByPath)]
ON_LEAF = "on leaf ... of ...: allowed are real floating leaves of 16 bits or more"
IN_LEAVES = {
    "a complex, an integer, an 8-bit floating leaf": [
        with_leaf(lambda leaf: leaf * 1j),
        with_leaf(lambda leaf: leaf.astype("int32")),
        with_leaf(lambda leaf: leaf.astype("float8_e4m3fn")),
    ],
    "a leaf that is no array": [with_leaf(lambda leaf: "float32")],
}
PASS = {"grads": "pass the gradient of the loss", "latent": "pass the latent of"}
WIDTHS = next(kind for kind in KINDS if "width" in kind.arguments)

METHOD_ROWS = [
    row_of_numbers(
        "a number made negative past the constructor, as by `jax.tree.map`",
        ValueError,
        "... of ... is ...; allowed: a finite number ",
        lambda number: -1.0 - abs(number),
    ),
    row_of_numbers(
        "a grid of numbers outside of `jax.vmap`",
        ValueError,
        "... of ... has shape (2,); allowed: one number. For a grid of numbers use "
        "jax.vmap",
        lambda number: jnp.stack([jnp.asarray(number)] * 2),
    ),
    *(
        row_of(given, argument, TypeError, f"{start}{ON_LEAF}", *changes)
        for argument, start in [
            ("params", ""),
            ("grads", "grads for ... "),
            ("latent", "latent for ... "),
        ]
        for given, changes in IN_LEAVES.items()
    ),
    *(
        row
        for argument, hint in PASS.items()
        for row in (
            row_of(
                "a tree that lacks a leaf",
                argument,
                ValueError,
                f"{argument} and params differ in structure: ...; {hint}",
                without_a_leaf,
                laws=WITH_PROX if argument == "latent" else LAWS,
            ),
            row_of(
                "a leaf of another shape, one that broadcasts among them",
                argument,
                ValueError,
                f"{argument} has shape ... at leaf ... of shape ...; {hint}",
                with_leaf(lambda leaf: leaf[:1]),
                with_leaf(lambda leaf: leaf[None]),
                laws=WITH_PARTS,
            ),
        )
    ),
    *scalars("step", STEPS),
    *scalars("width", WIDTHS),
    row_of(
        "a tree of another structure",
        "step",
        ValueError,
        "step and params differ in structure: ...; allowed: a scalar, or a tree with "
        "the structure of params",
        fixed({"other": 1.0}),
        methods=["prox"],
        laws=WITH_PROX,
    ),
    row_of(
        "a tree with a negative step",
        "step",
        ValueError,
        "step holds ...; allowed: numbers >= 0",
        lambda law: jax.tree.map(lambda leaf: -1.0, params_of(law)),
        lambda law: jax.tree.map(lambda leaf: -np.ones(1), params_of(law)),
        lambda law: jax.tree.map(lambda leaf: -jnp.ones(1), params_of(law)),
        methods=["prox"],
    ),
    row_of(
        "a step of a shape that does not broadcast",
        "step",
        ValueError,
        "step... has shape (7,); allowed: a shape that broadcasts to that of its leaf",
        lambda law: jax.tree.map(lambda leaf: jnp.ones(7), params_of(law)),
        methods=["prox"],
        laws=WITH_PROX,
    ),
    row_of(
        "`jnp.ones(2)` as a step",
        "step",
        ValueError,
        "step has shape (2,); allowed: one number",
        fixed(jnp.ones(2)),
        methods=["nearest_latent"],
        laws=ONE_RULE,
    ),
]
