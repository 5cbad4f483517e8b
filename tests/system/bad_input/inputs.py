"""Bad input that raises. Each row is a test and a line of docs/bad_input.md.

`python -m tests.system.bad_input.page` writes the page.
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from tests.support import ways
from tests.support.ways import (
    EVERY,
    EVERYWHERE,
    PARAMS,
    WITH_REPORTS,
)


@dataclasses.dataclass(frozen=True)
class Row:
    """An input, what happens in words, why nothing is lost, and the proof."""

    given: str
    ways: tuple[str, ...]
    happens: str
    kept: str
    check: Callable[[str], None]
    is_slow: bool = False
    # What the page says in place of the names.
    of: str | None = None


AT_CALL = "refused at the call, before any state exists"
AT_UPDATE = "refused at the first update, before anything is returned: params and state"
AT_UPDATE += " are as they were"


def pattern_of(message: str) -> str:
    """A regular expression of a message, with anything where `...` stands."""
    return "(?s)" + ".*".join(map(re.escape, message.split("...")))


def refused(
    given: str,
    error: type[Exception],
    message: str,
    use: Callable[[str], Any],
    names: tuple[str, ...] = EVERY,
    kept: str = AT_UPDATE,
) -> Row:
    """A row whose message holds the given parts, with anything where `...` stands.

    `{way}` stands for the transformation that speaks.
    """

    def check(way: str) -> None:
        speakers = f"({way}|{ways.speaker(way)})"
        pattern = pattern_of(message).replace(re.escape("{way}"), speakers)
        with pytest.raises(error, match=pattern):
            use(way)

    shown = message.replace("{way}", "...")
    return Row(given, names, f"{error.__name__}: `{shown}`", kept, check)


def built(make: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda way: ways.build(way, make(way))


def strength(number: Any) -> Callable[[str], Any]:
    return built(lambda way: ways.penalty(way, number))


def jitted(number: Any) -> Callable[[str], Any]:
    """A penalty made inside a jitted step, of a number that is not traced."""

    def use(way: str) -> Any:
        def step(params: Any) -> Any:
            return ways.use(way, ways.penalty(way, number), params)[0]

        return jax.jit(step)({"kernel": jnp.ones((3, 2))})

    return use


def at(params: Any) -> Callable[[str], Any]:
    return lambda way: ways.use(way, ways.penalty(way), params)


RANGE, REAL = "allowed: a finite number >= 0", "allowed: a real number >= 0"
WANTED = "allowed: a jaxreg penalty, as jaxreg.L1(1e-4) or"

PENALTY_ROWS = [
    refused(
        "the class without a call, `jaxreg.L1`",
        TypeError,
        f"penalty is <class 'jaxreg.penalties.l1.L1'>; {WANTED}",
        built(lambda way: jaxreg.L1),
        EVERYWHERE,
        AT_CALL,
    ),
    refused(
        "a function in place of a penalty, as a loss term",
        TypeError,
        f"penalty is <function ...; {WANTED}",
        built(lambda way: lambda params: 0.0),
        EVERYWHERE,
        AT_CALL,
    ),
    refused(
        "a number in place of a penalty, `0.001`",
        TypeError,
        f"penalty is 0.001; {WANTED}",
        built(lambda way: 0.001),
        EVERYWHERE,
        AT_CALL,
    ),
    refused(
        "a name in place of a penalty, `'l1'`",
        TypeError,
        f"penalty is 'l1'; {WANTED}",
        built(lambda way: "l1"),
        EVERYWHERE,
        AT_CALL,
    ),
    *(
        refused(given, error, message, strength(number), EVERYWHERE, AT_CALL)
        for given, error, message, number in [
            ("strength `-1.0`", ValueError, f"is -1.0; {RANGE}", -1.0),
            ("strength NaN", ValueError, f"is nan; {RANGE}", float("nan")),
            ("strength infinity", ValueError, f"is inf; {RANGE}", float("inf")),
            ("strength `np.float32('nan')`", ValueError, RANGE, np.float32("nan")),
            ("strength `jnp.asarray(-1.0)`", ValueError, RANGE, jnp.asarray(-1.0)),
            ("strength `True`", TypeError, f"is True; {REAL}", True),
            ("strength `'1e-3'`", TypeError, f"is '1e-3'; {REAL}", "1e-3"),
            ("strength `None`", TypeError, f"is None; {REAL}", None),
            ("strength `1j`", TypeError, REAL, 1j),
            ("strength `np.complex64(1j)`", TypeError, REAL, np.complex64(1j)),
            ("strength `np.True_`", TypeError, REAL, np.True_),
            ("strength `jnp.asarray(True)`", TypeError, REAL, jnp.asarray(True)),
            (
                "strength `np.ones(3)`",
                ValueError,
                "has shape (3,); allowed: one number. For a grid of numbers use "
                "jax.vmap",
                np.ones(3),
            ),
            (
                "a schedule as strength",
                TypeError,
                f"{REAL}; pass a function of the step count as schedule=",
                optax.linear_schedule(0.0, 1.0, 10),
            ),
        ]
    ),
    refused(
        "a negative Python strength inside a jitted step",
        ValueError,
        f"is -1.0; {RANGE}",
        jitted(-1.0),
        kept="refused while tracing",
    ),
    refused(
        "a NaN NumPy strength inside a jitted step",
        ValueError,
        RANGE,
        jitted(np.float32("nan")),
        kept="refused while tracing",
    ),
]

REAL_LEAVES = "allowed are real floating leaves of 16 bits or more. Leave this one "
REAL_LEAVES += "free with by_path"
NO_GROUPS = "the leaf has fewer than two axes, so a group would be a single entry; put "
NO_GROUPS += "L1 on it or leave it free"


def with_axis(axis: int) -> Callable[[str], Any]:
    return lambda way: ways.use(
        way, ways.penalty(way, axis=axis), {"w": jnp.ones((3, 2))}
    )


def with_rule(pattern: str, params: Any) -> Callable[[str], Any]:
    return lambda way: ways.use(
        way, jaxreg.by_path([(pattern, ways.penalty(way))]), params
    )


PARAMS_ROWS = [
    *(
        refused(
            f"{words} leaf under a penalty",
            TypeError,
            f"on leaf 'w' of dtype {dtype}: {REAL_LEAVES}",
            at({"w": jnp.ones((3, 2), dtype)}),
            WITH_REPORTS,
        )
        for words, dtype in [
            ("an integer", "int32"),
            ("a complex", "complex64"),
            ("a Boolean", "bool"),
            ("an 8-bit floating", "float8_e4m3fn"),
        ]
    ),
    refused(
        "a leaf that is no array under a penalty",
        TypeError,
        f"on leaf 'w' of type <class 'str'>: {REAL_LEAVES}",
        lambda way: ways.REPORTS[way](ways.penalty(way), {"w": "float32"}),
        tuple(ways.REPORTS),
        "refused at the call; transformations leave such leaves out",
    ),
    refused(
        "a scalar under a group penalty",
        ValueError,
        f"on leaf 'w' of shape (): {NO_GROUPS}",
        at({"w": jnp.ones(())}),
        WITH_REPORTS,
    ),
    refused(
        "a leaf of one axis under a group penalty",
        ValueError,
        f"on leaf 'w' of shape (3,): {NO_GROUPS}",
        at({"w": jnp.ones(3)}),
        WITH_REPORTS,
    ),
    refused(
        "`group_axis=2` on a leaf of two axes",
        ValueError,
        "on leaf 'w' of shape (3, 2): the leaf has axes 0 to 1, and group_axis is (2,)",
        with_axis(2),
        WITH_REPORTS,
    ),
    refused(
        "`group_axis=-3` on a leaf of two axes",
        ValueError,
        "on leaf 'w' of shape (3, 2): the leaf has axes 0 to 1, and group_axis is (-3,",
        with_axis(-3),
        WITH_REPORTS,
    ),
    refused(
        "a rule that matches nothing",
        ValueError,
        "the rule 'weight$' (... matches no leaf. Leaves: 'body/bias', "
        "'body/kernel'. Correct or remove the pattern",
        with_rule("weight$", PARAMS),
        WITH_REPORTS,
    ),
    refused(
        "a rule on an empty tree",
        ValueError,
        "matches no leaf. Leaves: none",
        with_rule("kernel$", {}),
        WITH_REPORTS,
    ),
    refused(
        "`update` without params",
        ValueError,
        "{way}: update was called without params, and the penalty is a function of "
        "them; write updates, state = tx.update(grads, state, params)",
        lambda way: (tx := ways.build(way, ways.penalty(way))).update(
            PARAMS, tx.init(PARAMS)
        ),
    ),
]
