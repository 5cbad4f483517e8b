"""Which way of applying a penalty solves which problem?

Question: Of the ways to apply L1, and of the tempting variants of each, which reach the
minimum of loss + L1 with its exact zero? The problem has the known answer (0.5, 0.015,
0): half the sum of a (x - b)^2, a = (1, 100, 1), b = (1, 0.02, 0.3), strength 0.5.

Claim: A prox solves loss + penalty if its step is the optimizer's gain: learning rate
times what the optimizer makes of a steady gradient.

Expected: `regularize` and the `prox_` optimizers are exact. A threshold at the learning
rate is exact after plain SGD, ten times too weak with momentum 0.9, and another problem
after Adam; behind MultiSteps it is as many times too strong. A penalty in the loss has
no exact zero.

Cost: about 20 seconds on 2 cores.

Command: python -m experiments ways
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import matplotlib.figure
import optax

import jaxreg
from experiments._experiment import Row
from experiments._quadratic import (
    STRENGTH,
    as_text,
    is_exact,
    plot_errors,
    row_of,
    solve,
)

DEFAULT = True

_L1 = jaxreg.L1(STRENGTH)


@dataclasses.dataclass(frozen=True)
class Config:
    """A cosine from `peak` to 0 (of SGD `sgd_peak`, of AdaGrad 0.5), float64."""

    steps: int = 20_000
    peak: float = 0.01
    sgd_peak: float = 0.005


QUICK = Config()

Maker = Callable[[optax.Schedule, optax.Schedule], Any]

# By the way, and the problem it solves: exactly loss + L1, or another one.
_WAYS: dict[str, Maker] = {
    "regularize(adam)": lambda adam, sgd: jaxreg.regularize(optax.adam(adam), _L1),
    "prox_sgd": lambda adam, sgd: jaxreg.prox_sgd(sgd, _L1),
    "prox_sgd, momentum 0.9": lambda adam, sgd: jaxreg.prox_sgd(sgd, _L1, 0.9),
    "prox_adam": lambda adam, sgd: jaxreg.prox_adam(adam, _L1),
    "prox_rmsprop": lambda adam, sgd: jaxreg.prox_rmsprop(adam, _L1),
    "prox_adagrad": lambda adam, sgd: jaxreg.prox_adagrad(
        lambda count: 50 * adam(count), _L1
    ),
    "sgd, then shrink": lambda adam, sgd: optax.chain(
        optax.sgd(sgd), jaxreg.shrink(_L1, sgd)
    ),
    "MultiSteps(prox_sgd, 4)": lambda adam, sgd: optax.MultiSteps(
        jaxreg.prox_sgd(sgd, _L1), 4
    ).gradient_transformation(),
    "add_penalty_gradient, then adam": lambda adam, sgd: optax.chain(
        jaxreg.add_penalty_gradient(_L1), optax.adam(adam)
    ),
    "sgd with momentum 0.9, then shrink": lambda adam, sgd: optax.chain(
        optax.sgd(sgd, 0.9), jaxreg.shrink(_L1, sgd)
    ),
    "adam, then shrink": lambda adam, sgd: optax.chain(
        optax.adam(adam), jaxreg.shrink(_L1, adam)
    ),
    "prox_adamw, weight_decay 0.1": lambda adam, sgd: jaxreg.prox_adamw(
        adam, _L1, weight_decay=0.1
    ),
    "MultiSteps(sgd, 4), then shrink": lambda adam, sgd: optax.chain(
        optax.MultiSteps(optax.sgd(sgd), 4).gradient_transformation(),
        jaxreg.shrink(_L1, sgd),
    ),
}


def cells(config: Config) -> list[Row]:
    """One cell per way."""
    return [{"way": way} for way in _WAYS]


def measure(config: Config, way: str) -> Row:
    """The distance of the answer from the solution, and whether its zero is exact."""
    rates = (
        optax.cosine_decay_schedule(peak, config.steps)
        for peak in (config.peak, config.sgd_peak)
    )
    # A step of MultiSteps is a quarter of an update.
    steps = config.steps * (4 if way.startswith("MultiSteps") else 1)
    return row_of(solve(_WAYS[way](*rates), steps).last)


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """The answers as text, beside their error and zeros."""
    return as_text(rows)


def verdict(config: Config, rows: list[Row]) -> str:
    """Which ways are exact."""
    exact = [row["way"] for row in rows if is_exact(row)]
    return (
        f"holds with conditions: {len(exact)} of {len(rows)} ways reach the minimum of "
        f"loss + L1 with its exact zero: {'; '.join(exact)}."
    )


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """Bars of the error."""
    return plot_errors([row["way"] for row in rows], rows)
