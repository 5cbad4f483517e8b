"""Which way of applying a penalty solves which problem?

Question: Of the ways to apply L1 or a constraint, and of the tempting variants of each,
which problem does each solve, with exact zeros, and at what memory? The loss is half
the sum of a (x - b)^2, a = (1, 100, 1), b = (1, 0.02, 0.3), in float64; with L1 of
strength 0.5 the answer is (0.5, 0.015, 0).

Claim: A prox solves loss + penalty if its step is the optimizer's gain: learning rate
times what the optimizer makes of a steady gradient.

Expected: every way reaches the answer of the problem that it names, and every variant
misses that of the problem it is meant for. Noise on the gradients (standard deviation
1) makes the exact zeros of a prox come and go, `flips` per step of the last fifth, and
leaves those of `regularize` alone.

Cost: about a minute on 2 cores.

Command: python -m experiments ways
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax

from experiments.correctness._quadratic import as_text, plot_errors, row_of, solve
from experiments.correctness._ways import WAYS, Way
from experiments.harness.contract import Row

DEFAULT = True


@dataclasses.dataclass(frozen=True)
class Config:
    """A cosine to 0 from `peak` for Adam and its kin, from `sgd_peak` for SGD."""

    steps: int = 20_000
    peak: float = 0.01
    sgd_peak: float = 0.005
    noise: float = 1.0


QUICK = Config()


def cells(config: Config) -> list[Row]:
    """One cell per way."""
    return [{"way": way} for way in WAYS]


def measure(config: Config, way: str) -> Row:
    """The answer and its distance from the one claimed, zeros, flips and memory."""
    one = WAYS[way]
    rates = [
        optax.cosine_decay_schedule(peak, config.steps)
        for peak in (config.peak, config.sgd_peak)
    ]
    tx, base = one.make(*rates), one.base(*rates)
    found = solve(tx, one.steps, start=one.start)
    noisy = solve(tx, one.steps, noise=config.noise, start=one.start)
    return {
        **row_of(found.last, one.answer),
        "flips": float(f"{noisy.flips[np.array(one.answer) == 0].sum():.3g}"),
        "memory": _words(tx) - _words(base),
    }


def _words(tx: Any) -> int:
    """How many numbers the state of a transformation holds per weight."""
    weights = jax.ShapeDtypeStruct((1, 1000), jnp.float32)
    state = jax.tree.leaves(jax.eval_shape(tx.init, weights))
    return sum(leaf.size for leaf in state) // 1000


def keeps_its_word(way: Way, row: Row) -> bool:
    """Whether a way reaches its answer with its zeros, or a variant misses it."""
    if way.is_variant:
        return bool(row["error"] > 0.01)
    wanted = int(np.sum(np.array(way.answer) == 0))
    has_zeros = row["zeros"] == wanted or not way.has_zeros
    return bool(row["error"] <= way.within and has_zeros)


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """What each solves, whether it is a way or a variant, and what it does to zeros."""
    return [
        {
            "way": f"`{row['way']}`",
            "kind": "variant" if WAYS[row["way"]].is_variant else "way",
            "solves": WAYS[row["way"]].solves,
            **{name: row[name] for name in ("answer", "error", "zeros")},
            "exact_zeros": _zeros_in_words(WAYS[row["way"]], row),
            "flips": row["flips"] if 0.0 in WAYS[row["way"]].answer else None,
            "memory": row["memory"],
        }
        for row in as_text(rows)
    ]


def _zeros_in_words(way: Way, row: Row) -> str:
    if not row["zeros"]:
        return "none" if 0.0 in way.answer else ""
    return "come and go" if row["flips"] > 0 else "stay"


def verdict(config: Config, rows: list[Row]) -> str:
    """Which ways keep their word."""
    good = [row["way"] for row in rows if keeps_its_word(WAYS[row["way"]], row)]
    bad = [row["way"] for row in rows if row["way"] not in good]
    still = [row["way"] for row in rows if row["zeros"] and row["flips"] == 0]
    return (
        f"{'holds with conditions' if not bad else 'false'}: {len(good)} of "
        f"{len(rows)} ways and variants solve what the table says"
        f"{', not ' + '; '.join(bad) if bad else ''}. With noisy gradients the zeros "
        f"stay with {'; '.join(still)}."
    )


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """Bars of the error."""
    return plot_errors([row["way"] for row in rows], rows)
