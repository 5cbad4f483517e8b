"""What does a regularized training step cost?

Question: How long does an optimizer step with each transform of jaxreg take, as a
multiple of `optax.adamw`; how much memory does it move and hold; and how long does it
take to compile with many leaves? Update and apply_updates are one compiled step,
parameters and state donated; gradients are given.

Claim: L1 regularization costs more to compute than L2.

Expected: proximal with an elementwise penalty at most 1.15 times adamw, in Adam's
metric 1.3; groups of rows 2.0; groups of rows in Adam's metric 5 and no array of the
size of a leaf; with 500 small leaves 1.3 times, compiled in 2 times (groups 4, groups
in a metric 8) adamw's time.

Corrected: what stands behind an optimizer and needs sums over groups or leaves (shrink
and half_space on rows, project on a ball) takes more than 2: the sum needs p + u as an
array. In plain JAX the same takes about as long with 100 million parameters, on rows
longer. With 500 leaves regularize, target_sparsity, ftrl, half_space and hold_support
on rows, and the run of prox_adam on rows take more than expected. In plain JAX
regularize runs in more than 1.3 too, for its latents are arrays of their own, but it
compiles within the limits: the check for edited weights and its branch are what XLA's
time goes into.

Cost: about nine minutes on 2 cores and 6 GB of memory.

Command: python -m experiments step_cost
"""

import dataclasses
import math
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
import optax

from experiments.cost._steps import (
    BASE,
    RATE,
    WAYS,
    Maker,
    Run,
    gradients,
    large,
    matrices,
    moved,
    range_of,
)
from experiments.harness.contract import Row
from experiments.kit import plotting

_COMPILATIONS = 2

SMALL = (64, 64)
_STRENGTH, _WIDTH = 1e-4, 0.05
_Prox = Callable[[jax.Array, float], jax.Array]
KINDS = {
    "L1 by a prox after a direction": ("prox_sgd, L1", "prox_adam, L1"),
    "rows by a prox after a direction": ("prox_sgd, rows", "prox_adam, rows"),
    "regularize": ("regularize(adam), L1", "regularize(adam), rows"),
    "shrink": ("adam, shrink L1", "adam, shrink rows"),
}


def _soft_threshold(y: jax.Array, threshold: float) -> jax.Array:
    """Soft thresholding."""
    return y - jnp.clip(y, -threshold, threshold)


def _row_sizes(y: jax.Array) -> jax.Array:
    """Root mean squares of rows."""
    return jnp.sqrt(jnp.mean(jnp.square(y), axis=1, keepdims=True))


def _shrink_rows(y: jax.Array, threshold: float) -> jax.Array:
    """Group soft thresholding of rows, the threshold per root mean square."""
    return y * jnp.maximum(0, 1 - threshold / jnp.maximum(_row_sizes(y), 1e-30))


def _onto_ball(y: jax.Array, radius: float) -> jax.Array:
    """Projection onto the ball of a leaf's Euclidean norm."""
    norm = jnp.sqrt(jnp.sum(jnp.square(y)))
    return y * jnp.minimum(1, radius / jnp.maximum(norm, 1e-30))


def _after_adam(prox: _Prox, threshold: float) -> optax.GradientTransformation:
    """Adam's step and a prox, in plain JAX."""
    adam = optax.adam(RATE)

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        moves, state = adam.update(grads, state, params)
        return jax.tree.map(
            lambda p, u: prox(p + u, threshold) - p, params, moves
        ), state

    return optax.GradientTransformation(adam.init, update)


def _normal_map(
    prox: _Prox, outward: Callable[[jax.Array], jax.Array]
) -> optax.GradientTransformation:
    """`regularize(adam)` in plain JAX; the subgradient is strength * outward."""
    adam, step = optax.adam(RATE), _WIDTH / _STRENGTH

    def init(params: Any) -> Any:
        latent = jax.tree.map(lambda p: p + _WIDTH * outward(p), params)
        return latent, adam.init(params)

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        latent, inner = state
        forces = jax.tree.map(
            lambda g, z: g + (z - prox(z, _WIDTH)) / step, grads, latent
        )
        moves, inner = adam.update(forces, inner, latent)
        latent = jax.tree.map(jnp.add, latent, moves)
        shown = jax.tree.map(lambda z, p: prox(z, _WIDTH) - p, latent, params)
        return shown, (latent, inner)

    return optax.GradientTransformation(init, update)


# Written out in plain JAX for one optimizer and one penalty, without checks, restarts
# or rules: the best that Optax's interface allows, in which an update is added to
# parameters that it cannot overwrite.
BY_HAND: dict[str, Maker] = {
    "adam, shrink rows": lambda: _after_adam(_shrink_rows, RATE * 1e-4),
    "adam, project L2Ball": lambda: _after_adam(_onto_ball, 10.0),
    "regularize(adam), L1": lambda: _normal_map(_soft_threshold, jnp.sign),
    "regularize(adam), rows": lambda: _normal_map(
        _shrink_rows, lambda p: p / _row_sizes(p)
    ),
}
ALL = WAYS | {f"{way}, by hand": make for way, make in BY_HAND.items()}


@dataclasses.dataclass(frozen=True)
class Config:
    """Parameters in 4 equal matrices of 1000 columns, then in leaves of 64 x 64.

    Rounds of steps are timed in turn.
    """

    ways: tuple[str, ...] = tuple(ALL)
    sizes: tuple[int, ...] = (10_000_000, 100_000_000)
    small_leaves: int = 500
    rounds: int = 15


# One way of each kind, and one by hand.
QUICK = Config(
    ways=(
        "prox_sgd, L1",
        "prox_sgd, rows",
        "regularize(adam), L1",
        "regularize(adam), L1, by hand",
        "adam, shrink L1",
    ),
    sizes=(400_000,),
    small_leaves=4,
    rounds=3,
)


def cells(config: Config) -> list[Row]:
    """One cell per way and set-up; each is timed against adamw in turn."""
    many = config.small_leaves * math.prod(SMALL)
    setups = [("large", size) for size in config.sizes] + [("many", many)]
    return [
        {"way": way, "setup": setup, "parameters": size}
        for setup, size in setups
        for way in config.ways
    ]


def measure(config: Config, way: str, setup: str, parameters: int) -> Row:
    """Times both optimizers in turn, and reads XLA's numbers of the compiled step."""
    is_large = setup == "large"
    params = matrices(large(parameters) if is_large else SMALL, parameters)
    grads = gradients(params)
    times = 1 if is_large else _COMPILATIONS
    runs = [Run(ALL[name](), params, grads, times) for name in (BASE, way)]
    count = sum(leaf.size for leaf in params)
    del params
    seconds = [[run.seconds(grads) for run in runs] for _ in range(config.rounds + 2)]
    # The first rounds still page the buffers in.
    base, ours = zip(*seconds[2:], strict=True)
    # XLA counts a slice of a stack of leaves as the whole stack.
    return {
        "ratio": statistics.median(ours) / statistics.median(base),
        "compile_ratio": None if is_large else runs[1].compiling / runs[0].compiling,
        "words": moved(runs[1].compiled) / 4 / count if is_large else None,
        "temporaries": runs[1].temporaries() / 4 / count,
    }


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """The rows as they are: a ratio is a median already."""
    return rows


def verdict(config: Config, rows: list[Row]) -> str:
    """The ranges of the ratios by kind of way, and against plain JAX."""
    large, many = (
        {(row["way"], row["parameters"]): row for row in rows if row["setup"] == setup}
        for setup in ("large", "many")
    )
    texts = []
    for kind, ways in KINDS.items():
        ratios = [row["ratio"] for (way, _), row in large.items() if way in ways]
        small = [row["ratio"] for (way, _), row in many.items() if way in ways]
        texts.append(f"{kind} {range_of(ratios)} (many leaves {range_of(small)})")
    beside = [
        row["ratio"] / runs[f"{way}, by hand", size]["ratio"]
        for runs in (large, many)
        for (way, size), row in runs.items()
        if f"{way}, by hand" in config.ways
    ]
    return (
        f"measured: of adamw's step: {', '.join(texts)}; {len(beside)} runs against "
        f"the same in plain JAX: {range_of(beside)} times."
    )


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """The ratios of each way: a marker per set-up."""
    figure = matplotlib.figure.Figure(figsize=(7, 5.5), layout="constrained")
    axes = figure.subplots()
    series: dict[str, list[tuple[str, float]]] = {}
    for row in rows:
        series.setdefault(_setup(row), []).append((row["way"], row["ratio"]))
    plotting.by_size(axes, list(config.ways), series)
    axes.axvline(1, color="grey", linewidth=1)
    axes.set_xlabel("time of a step, multiples of adamw")
    return figure


def _setup(row: Row) -> str:
    millions = f"{row['parameters'] / 1e6:.3g} million"
    return f"{millions}, {'4 leaves' if row['setup'] == 'large' else 'small leaves'}"
