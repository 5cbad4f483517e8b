"""How near is a regularized step to what the memory allows?

Question: An optimizer step must read each of its inputs once and write each of its
outputs once. What part of the speed of a plain copy does a step with each transform of
jaxreg reach, on this device?

Claim: A step with a penalty on entries is limited by memory alone: it reaches 80 % of
the speed of a copy.

Expected: on a GPU XLA writes all outputs of an elementwise step in one kernel, so that
adamw and every way with a penalty on entries move what they must; sums over rows or
over leaves need a second pass, and the prox of rows in Adam's metric several.

Cost: about three minutes on an H100 with its 80 GB of memory.

Command: XLA_PYTHON_CLIENT_MEM_FRACTION=0.95 python -m experiments step_bandwidth
"""

import dataclasses
import statistics
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
from jax.extend.core import Var

from experiments.cost._steps import (
    BASE,
    WAYS,
    Run,
    gradients,
    large,
    matrices,
    range_of,
    seconds_of,
    step_of,
)
from experiments.harness.contract import Row
from experiments.kit import plotting, stats

# Their update of an entry reads only that entry of each array.
ELEMENTWISE = (
    "prox_sgd, L1",
    "prox_adam, L1",
    "regularize(adam), L1",
    "target_sparsity(adam), L1",
    "adam, shrink L1",
    "adam, project Box",
    "adam, hold_support L1",
    "adam, orthant L1",
    "add_penalty_gradient L1, adam",
    "dual_average, L1",
    "ftrl, L1",
)
GOAL = 0.8


@dataclasses.dataclass(frozen=True)
class Config:
    """Parameters in 4 equal matrices of 1000 columns.

    Rounds of `steps` back-to-back steps are timed in turn with adamw and a copy.
    """

    ways: tuple[str, ...] = tuple(WAYS)
    sizes: tuple[int, ...] = (100_000_000, 1_000_000_000)
    rounds: int = 9
    steps: int = 10


QUICK = Config(ways=("adamw", "prox_sgd, L1"), sizes=(400_000,), rounds=3, steps=2)


def cells(config: Config) -> list[Row]:
    """One cell per way and size."""
    return [
        {"way": way, "parameters": size} for size in config.sizes for way in config.ways
    ]


def measure(config: Config, way: str, parameters: int) -> Row:
    """Times a way, adamw and a copy in turn."""
    params = matrices(large(parameters), parameters)
    grads = gradients(params)
    runs = [Run(WAYS[name](), params, grads) for name in (BASE, way)]
    count = sum(leaf.size for leaf in params)
    words = least_words(step_of(WAYS[way]()), *runs[1].carry, grads) / count
    timed: tuple[Any, ...] = (_Copy(params), *runs)
    del params
    # The first rounds warm the device up.
    rounds = [
        [each.seconds(grads, config.steps) for each in timed]
        for _ in range(config.rounds + 2)
    ][2:]
    copying, base, ours = map(statistics.median, zip(*rounds, strict=True))
    return {
        "ratio": ours / base,
        "least_words": words,
        "of_copy": words / 2 * copying / ours,
        "temporaries": runs[1].temporaries() / 4 / count,
        "copy_gb_per_second": 8 * count / copying / 1e9,
    }


def least_words(step: Any, *inputs: Any) -> float:
    """Words of four bytes in the inputs that a step uses and the outputs it computes.

    All of the state counts, also parts that an ordinary step leaves unchanged.
    """
    jaxpr = jax.make_jaxpr(step)(*inputs).jaxpr
    read = {v for eqn in jaxpr.eqns for v in eqn.invars if isinstance(v, Var)}
    used = [v for v in jaxpr.invars if v in read]
    written = [v for v in jaxpr.outvars if v not in jaxpr.invars]
    return sum(v.aval.size * v.aval.dtype.itemsize for v in used + written) / 4


class _Copy:
    """Leaves written to others: by XLA's copy, or by a kernel that also negates."""

    def __init__(self, leaves: list[jax.Array]):
        self.source = [jnp.copy(leaf) for leaf in leaves]
        self.target = [jnp.copy(leaf) for leaf in leaves]
        self.kinds = [
            jax.jit(
                lambda source, _, write=write: list(map(write, source)),
                donate_argnums=1,
                keep_unused=True,
            )
            for write in (jnp.copy, jnp.negative)
        ]

    def seconds(self, grads: Any, steps: int) -> float:
        """Mean seconds of the faster kind per copy, over `steps` back-to-back ones."""
        del grads
        return min(self._seconds(kind, steps) for kind in self.kinds)

    def _seconds(self, kind: Any, steps: int) -> float:
        def once() -> Any:
            written = kind(self.source, self.target)
            self.source, self.target = written, self.source
            return written

        return seconds_of(once, steps)


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """The rows as they are: medians already."""
    return rows


def verdict(config: Config, rows: list[Row]) -> str:
    """The elementwise ways that miss the goal, by size."""
    elementwise = [row for row in rows if row["way"] in ELEMENTWISE]
    slow = [row for row in elementwise if row["of_copy"] < GOAL]
    at = [row["of_copy"] for row in elementwise]
    word = "false" if len(slow) == len(elementwise) else "holds with conditions"
    text = (
        f"{word if slow else 'holds'}: {range_of(at)} of the speed of a copy, "
        f"adamw {range_of([row['of_copy'] for row in rows if row['way'] == BASE])}"
    )
    behind = "; ".join(
        f"{row['way']} {row['of_copy']:.2f} at {row['parameters'] / 1e6:,.4g} million"
        for row in slow
    )
    return f"{text}; below: {behind}." if slow else f"{text}."


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """The part of a copy's speed that each way reaches: a marker per size."""
    figure = matplotlib.figure.Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    series = {
        f"{size / 1e6:,.4g} million parameters": [
            (row["way"], row["of_copy"]) for row in stats.select(rows, parameters=size)
        ]
        for size in config.sizes
    }
    plotting.by_size(axes, list(config.ways), series)
    axes.axvline(GOAL, color="grey", linewidth=1)
    axes.set_xlim(left=0)
    axes.set_xlabel("speed of a step, of that of a copy")
    return figure
