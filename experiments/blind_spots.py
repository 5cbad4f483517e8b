"""What stands around `jaxreg.regularize` that it cannot see, and what does it do?

Question: Which wrappers and neighbours leave the solution of loss + L1 alone, and how
wrong is the answer with the others? The problem has the known answer (0.5, 0.015, 0):
half the sum of a (x - b)^2, a = (1, 100, 1), b = (1, 0.02, 0.3), L1 of strength 0.5.

Claim: A transformation sees gradients, parameters and its own state, nothing else.

Expected: no error for what may stand there; for the rest an error worth knowing. Noise
of standard deviation 1 on the gradients shows what decay inside does in training.

Cost: about 10 seconds on 2 cores.

Command: python -m experiments blind_spots
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

_EMA = "an average of the params is used"
_NOISY = ", noisy gradients"
_FLAT = ", begun where a gradient is 0"


@dataclasses.dataclass(frozen=True)
class Config:
    """Adam with a cosine from `peak` to 0, started at (2, 2, 2), float64."""

    steps: int = 8000
    peak: float = 0.01


QUICK = Config()

Maker = Callable[[optax.Schedule], optax.GradientTransformation]


def _ours(inner: optax.GradientTransformation) -> Any:
    return jaxreg.regularize(inner, jaxreg.L1(STRENGTH))


_SETUPS: dict[str, Maker] = {
    "regularize(adam) alone": lambda rate: _ours(optax.adam(rate)),
    "clipping inside it": lambda rate: _ours(
        optax.chain(optax.clip_by_global_norm(0.1), optax.adam(rate))
    ),
    "MultiSteps inside it": lambda rate: _ours(
        optax.MultiSteps(optax.adam(rate), 4).gradient_transformation()
    ),
    "MultiSteps around it": lambda rate: optax.MultiSteps(
        _ours(optax.adam(rate)), 4
    ).gradient_transformation(),
    "apply_if_finite around it": lambda rate: optax.apply_if_finite(
        _ours(optax.adam(rate)), 3
    ),
    "weight decay 0.1 inside it": lambda rate: _ours(
        optax.adamw(rate, weight_decay=0.1)
    ),
    "gradients clipped to norm 0.1 before it": lambda rate: optax.chain(
        optax.clip_by_global_norm(0.1), _ours(optax.adam(rate))
    ),
    "gradients of a halved loss": lambda rate: optax.chain(
        optax.scale(0.5), _ours(optax.adam(rate))
    ),
    "its updates halved": lambda rate: optax.chain(
        _ours(optax.adam(rate)), optax.scale(0.5)
    ),
    "its updates clipped to 1e-4": lambda rate: optax.chain(
        _ours(optax.adam(rate)), optax.clip(1e-4)
    ),
    "weight decay after it": lambda rate: optax.chain(
        _ours(optax.adam(rate)), optax.add_decayed_weights(-1e-3)
    ),
    _EMA: lambda rate: _ours(optax.adam(rate)),
    "prox_adam, gradients of a halved loss": lambda rate: optax.chain(
        optax.scale(0.5), jaxreg.prox_adam(rate, jaxreg.L1(STRENGTH))
    ),
    "prox_adam, its updates halved": lambda rate: optax.chain(
        jaxreg.prox_adam(rate, jaxreg.L1(STRENGTH)), optax.scale(0.5)
    ),
    f"prox_adam{_FLAT}": lambda rate: jaxreg.prox_adam(rate, jaxreg.L1(STRENGTH)),
    "proximal(adam(1e-2), 1.0): an alias as direction": lambda rate: jaxreg.proximal(
        optax.adam(1e-2), 1.0, jaxreg.L1(STRENGTH), metric=jaxreg.adam_metric()
    ),
    f"regularize(adam) alone{_NOISY}": lambda rate: _ours(optax.adam(rate)),
    f"weight decay 0.1 inside it{_NOISY}": lambda rate: _ours(
        optax.adamw(rate, weight_decay=0.1)
    ),
}


def cells(config: Config) -> list[Row]:
    """One cell per setup."""
    return [{"setup": setup} for setup in _SETUPS]


def measure(config: Config, setup: str) -> Row:
    """The distance of the answer from the solution, and whether its zero is exact."""
    tx = _SETUPS[setup](optax.cosine_decay_schedule(config.peak, config.steps))
    # A step of MultiSteps is a quarter of an update.
    steps = config.steps * (4 if setup.startswith("MultiSteps") else 1)
    start = 1.0 if setup.endswith(_FLAT) else 2.0
    found = solve(tx, steps, noise=float(setup.endswith(_NOISY)), start=start)
    return row_of(found.average if setup == _EMA else found.last)


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """The answers as text, beside their error and zeros."""
    return as_text(rows)


def verdict(config: Config, rows: list[Row]) -> str:
    """How many setups reach the solution."""
    exact = sum(map(is_exact, rows))
    worst = max(rows, key=lambda row: row["error"])
    return (
        f"measured: {exact} of {len(rows)} setups reach the solution with its "
        f"exact zero; the worst, {worst['setup']!r}, is off by {worst['error']:g}."
    )


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """Bars of the error."""
    return plot_errors([row["setup"] for row in rows], rows)
