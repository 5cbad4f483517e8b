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
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax

import jaxreg
from experiments._experiment import Row

DEFAULT = True

SOLUTION = (0.5, 0.015, 0.0)
_CURVATURE = (1.0, 100.0, 1.0)
_CENTRE = (1.0, 0.02, 0.3)
_STRENGTH = 0.5
_EMA = "an average of the params is used"
_NOISY = ", noisy gradients"


@dataclasses.dataclass(frozen=True)
class Config:
    """Adam with a cosine from `peak` to 0, started at (1, 1, 1), float64."""

    steps: int = 8000
    peak: float = 0.01


QUICK = Config()

Maker = Callable[[optax.Schedule], optax.GradientTransformation]


def _ours(inner: optax.GradientTransformation) -> Any:
    return jaxreg.regularize(inner, jaxreg.L1(_STRENGTH))


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
    with jax.enable_x64(True):
        found = np.asarray(_run(config, setup))
    return {
        "answer": [float(f"{value:.4g}") for value in found],
        "error": float(f"{np.max(np.abs(found - SOLUTION)):.1e}"),
        "zeros": int(np.sum(found == 0)),
    }


@functools.partial(jax.jit, static_argnames=("config", "setup"))
def _run(config: Config, setup: str) -> jax.Array:
    tx = _SETUPS[setup](optax.cosine_decay_schedule(config.peak, config.steps))
    # A step of MultiSteps is a quarter of an update.
    steps = config.steps * (4 if setup.startswith("MultiSteps") else 1)

    noise = float(setup.endswith(_NOISY))

    def step(carry: tuple[Any, Any, Any], key: jax.Array) -> tuple[Any, None]:
        x, average, state = carry
        grads = jnp.array(_CURVATURE) * (x - jnp.array(_CENTRE))
        grads = grads + noise * jax.random.normal(key, x.shape)
        updates, state = tx.update(grads, state, x)
        x = optax.apply_updates(x, updates)
        return (x, optax.incremental_update(x, average, 0.01), state), None

    start = jnp.ones(3)
    carry = (start, start, tx.init(start))
    keys = jax.random.split(jax.random.key(0), steps)
    (x, average, _), _ = jax.lax.scan(step, carry, keys)
    return average if setup == _EMA else x


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """The answers as text, beside their error and zeros."""
    return [{**row, "answer": ", ".join(map(str, row["answer"]))} for row in rows]


def verdict(config: Config, rows: list[Row]) -> str:
    """How many setups reach the solution."""
    exact = [row for row in rows if row["error"] < 1e-9 and row["zeros"] == 1]
    worst = max(rows, key=lambda row: row["error"])
    return (
        f"measured: {len(exact)} of {len(rows)} setups reach the solution with its "
        f"exact zero; the worst, {worst['setup']!r}, is off by {worst['error']:g}."
    )


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """Bars of the error."""
    figure = matplotlib.figure.Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    names = [row["setup"] for row in reversed(rows)]
    bars = axes.barh(names, [row["error"] for row in reversed(rows)])
    axes.bar_label(bars, fmt="%.1g", padding=3)
    axes.set_xlabel("largest error of the answer; the solution is (0.5, 0.015, 0)")
    axes.margins(x=0.12)
    return figure
