"""Bad arguments of `check`. Each row is a test and a line of docs/bad_input.md."""

from typing import Any

import jax.numpy as jnp
import optax

import jaxreg
from tests.system.bad_input.inputs import Row, refused

L1, SGD = jaxreg.L1(0.1), optax.sgd(0.1)
RULES = jaxreg.on_kernels(L1)
BEFORE = "refused before the first run"


def row(
    given: str,
    error: type[Exception],
    message: str,
    *arguments: Any,
    steps: Any = 100,
) -> Row:
    return refused(
        given,
        error,
        message,
        lambda way: jaxreg.check(*arguments, steps=steps),
        ("check",),
        BEFORE,
    )


CHAIN_ROWS = [
    row(
        "the penalty before the transformation",
        TypeError,
        "check: transformation is L1(strength=0.1); allowed: an Optax transformation",
        L1,
        SGD,
    ),
    row(
        "`optax.MultiSteps` itself",
        TypeError,
        "of optax.MultiSteps its gradient_transformation()",
        optax.MultiSteps(SGD, 2),
        L1,
    ),
    row(
        "a strength in place of the penalty",
        TypeError,
        "penalty is 0.1; allowed: a jaxreg penalty",
        SGD,
        0.1,
    ),
    row(
        "a penalty without a prox",
        TypeError,
        "check: HoyerSquare(strength=0.1) has no prox",
        SGD,
        jaxreg.HoyerSquare(0.1),
    ),
    row(
        "rules without params",
        ValueError,
        "check(...): it does not fit a vector or a small matrix; pass params=, a small "
        "tree with the paths and shapes of your parameters",
        SGD,
        RULES,
    ),
    row(
        "params that a rule does not match",
        ValueError,
        "matches no leaf. Leaves: 'bias'",
        SGD,
        RULES,
        {"bias": jnp.zeros(3)},
    ),
    row(
        "a penalty that leaves the solution where it is",
        ValueError,
        "check(L0(strength=0.1)): the loss alone rests where loss + penalty does, so "
        "that no run can tell the two problems apart",
        SGD,
        jaxreg.L0(0.1),
    ),
    row(
        "a number of steps that is no int >= 1",
        ValueError,
        "check: steps is 0; allowed: a number of updates, an int >= 1",
        SGD,
        L1,
        steps=0,
    ),
    row(
        "a chain that a transformation refuses",
        ValueError,
        "regularize: the optimizer applies a penalty already",
        jaxreg.regularize(jaxreg.prox_sgd(0.1, L1), L1),
        L1,
    ),
]
