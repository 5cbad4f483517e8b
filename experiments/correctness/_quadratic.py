"""A loss of three scales with an L1 penalty, whose solution is known.

Half the sum of a (x - b)^2, a = (1, 100, 1), b = (1, 0.02, 0.3), and L1 of strength
0.5: the solution is (0.5, 0.015, 0).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax

from experiments.harness.contract import Row

SOLUTION = (0.5, 0.015, 0.0)
STRENGTH = 0.5
CURVATURE = (1.0, 100.0, 1.0)
CENTRE = (1.0, 0.02, 0.3)


class Answer(NamedTuple):
    """The parameters after the last step, their moving average, the flips, and a mean.

    Flips count how often an entry became zero or ceased to be, per step of the last
    fifth of the run. `watched` is the mean over all steps of what `watch` returned.
    """

    last: np.ndarray
    average: np.ndarray
    flips: np.ndarray
    watched: float


# Of the parameters, their average and the state after a step.
Watch = Callable[[Any, Any, Any], jax.Array | float]


def solve(
    tx: optax.GradientTransformation,
    steps: int,
    noise: float = 0.0,
    start: Any = 2.0,
    watch: Watch = lambda params, average, state: 0.0,
) -> Answer:
    """Trains parameters from `start` with a transformation, in float64.

    A `start` of shape (1, 3) makes a matrix of them. `noise` is the standard deviation
    of Gaussian noise on the gradients.
    """

    def step(carry: tuple[Any, Any, Any], key: jax.Array) -> tuple[Any, Any]:
        x, average, state = carry
        grads = jnp.array(CURVATURE) * (x - jnp.array(CENTRE))
        grads = grads + noise * jax.random.normal(key, x.shape)
        updates, state = tx.update(grads, state, x)
        new = optax.apply_updates(x, updates)
        flips = (new == 0) != (x == 0)
        average = optax.incremental_update(new, average, 0.01)
        return (new, average, state), (flips, watch(new, average, state))

    with jax.enable_x64(True):
        shape = np.broadcast_shapes(np.shape(start), (3,))
        params = jnp.broadcast_to(jnp.asarray(start, float), shape)
        keys = jax.random.split(jax.random.key(0), steps)
        run = jax.jit(lambda carry: jax.lax.scan(step, carry, keys))
        (last, average, _), (flips, seen) = run((params, params, tx.init(params)))
        late = np.mean(flips[-(steps // 5) :], axis=0)
        mean = float(np.mean(seen))
        return Answer(np.ravel(last), np.ravel(average), np.ravel(late), mean)


def row_of(answer: np.ndarray, solution: tuple[float, ...] = SOLUTION) -> Row:
    """The answer, its distance from the solution, and its exact zeros."""
    return {
        "answer": [float(f"{value:.4g}") for value in answer],
        "error": float(f"{np.max(np.abs(answer - solution)):.1e}"),
        "zeros": int(np.sum(answer == 0)),
    }


def as_text(rows: list[Row]) -> list[Row]:
    """The answers as text, beside their error and zeros."""
    return [{**row, "answer": ", ".join(map(str, row["answer"]))} for row in rows]


def is_exact(row: Row) -> bool:
    """True if an answer is the solution with its one exact zero."""
    # Room for the last steps of a schedule and for rounding.
    return bool(row["error"] < 1e-8 and row["zeros"] == 1)


def plot_errors(names: list[str], rows: list[Row]) -> matplotlib.figure.Figure:
    """A horizontal bar per error."""
    figure = matplotlib.figure.Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh(names[::-1], [row["error"] for row in reversed(rows)])
    axes.bar_label(bars, fmt="%.1g", padding=3)
    axes.set_xlabel("largest error of the answer; the solution is (0.5, 0.015, 0)")
    axes.margins(x=0.12)
    return figure
