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

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable

import jax.numpy as jnp
import matplotlib.figure
import optax

from experiments.cost import _by_hand
from experiments.cost._step_runs import WAYS, Run, gradients, large, matrices, range_of
from experiments.cost._steps import BASE, RATE, moved
from experiments.harness.contract import Row

_COMPILATIONS = 2

SMALL = (64, 64)
# The same written out in plain JAX: what can be had through Optax's interface.
BY_HAND: dict[str, Callable[[], optax.GradientTransformation]] = {
    "adam, shrink rows": lambda: _by_hand.after_adam(_by_hand.rows, RATE * 1e-4),
    "adam, project L2Ball": lambda: _by_hand.after_adam(_by_hand.ball, 10.0),
    "regularize(adam), L1": lambda: _by_hand.normal_map(_by_hand.entries, jnp.sign),
    "regularize(adam), rows": lambda: _by_hand.normal_map(
        _by_hand.rows, lambda p: p / _by_hand.row_sizes(p)
    ),
}
KINDS = {
    "L1 by a prox after a direction": ("prox_sgd, L1", "prox_adam, L1"),
    "rows by a prox after a direction": ("prox_sgd, rows", "prox_adam, rows"),
    "regularize": ("regularize(adam), L1", "regularize(adam), rows"),
    "shrink": ("adam, shrink L1", "adam, shrink rows"),
}
ALL = WAYS | {f"{way}, by hand": make for way, make in BY_HAND.items()}


@dataclasses.dataclass(frozen=True)
class Config:
    """Parameters in 4 equal matrices of 1000 columns, then in leaves of 64 x 64.

    Rounds of steps are timed in turn.
    """

    sizes: tuple[int, ...] = (10_000_000, 100_000_000)
    small_leaves: int = 500
    rounds: int = 15


QUICK = Config(sizes=(400_000,), small_leaves=4, rounds=3)


def cells(config: Config) -> list[Row]:
    """One cell per way and set-up; each is timed against adamw in turn."""
    many = config.small_leaves * math.prod(SMALL)
    setups = [("large", size) for size in config.sizes] + [("many", many)]
    return [
        {"way": way, "setup": setup, "parameters": size}
        for setup, size in setups
        for way in ALL
    ]


def measure(config: Config, way: str, setup: str, parameters: int) -> Row:
    """Times both optimizers in turn, and reads what XLA says of the compiled step."""
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
    """The range of the ratios of each kind of way, and beside what is by hand."""
    large, many = (
        {(row["way"], row["parameters"]): row for row in rows if row["setup"] == setup}
        for setup in ("large", "many")
    )
    found = []
    for kind, ways in KINDS.items():
        ratios = [row["ratio"] for (way, _), row in large.items() if way in ways]
        small = [row["ratio"] for (way, _), row in many.items() if way in ways]
        found.append(f"{kind} {range_of(ratios)} (many leaves {range_of(small)})")
    beside = [
        found["ratio"] / runs[f"{way}, by hand", size]["ratio"]
        for runs in (large, many)
        for (way, size), found in runs.items()
        if way in BY_HAND
    ]
    return (
        f"measured: of adamw's step: {', '.join(found)}; {len(BY_HAND)} ways against "
        f"the same in plain JAX: {range_of(beside)} times."
    )


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """The ratios of each way: a marker per set-up."""
    figure = matplotlib.figure.Figure(figsize=(7, 5.5), layout="constrained")
    axes = figure.subplots()
    names = list(ALL)[::-1]
    for marker, size in zip("os^Dv", dict.fromkeys(map(_setup, rows)), strict=False):
        found = {row["way"]: row["ratio"] for row in rows if _setup(row) == size}
        heights = [names.index(way) for way in found]
        axes.plot(list(found.values()), heights, marker, label=size, alpha=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.axvline(1, color="grey", linewidth=1)
    axes.set_xlabel("time of a step, multiples of adamw")
    axes.grid(axis="y", linewidth=0.3)
    axes.legend()
    return figure


def _setup(row: Row) -> str:
    millions = f"{row['parameters'] / 1e6:.3g} million"
    return f"{millions}, {'4 leaves' if row['setup'] == 'large' else 'small leaves'}"
