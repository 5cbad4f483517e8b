"""What does a prox cost, next to compiled loops and other libraries?

Question: How long does a compiled prox of a million float32 entries take, as a multiple
of a numba loop for soft thresholding (parallel, as a user would write it), of one pass
of XLA over the same array, of the L1 balls of Optax and jaxopt, of a numba loop for
total variation, of NumPy's partition for TopK, and of NumPy's sort with SciPy's
isotonic regression for SLOPE? And how long does each prox of the catalogue take to
compile for 100 leaves?

Claim: Regularization is cheap: no prox needs a host callback or a special kernel.

Expected: at most 1.5 times the loop for L1, 3 times for total variation, 5 times the
partition for TopK, at most 1/20 of either L1 ball; no compilation above 5 seconds.

Corrected: the prox of L1 misses its limit against a loop on all cores, and so does
adding 1 in XLA: it is XLA's own pass over an array.

Cost: about 1 minute on 2 cores; needs numba and jaxopt, `pip install -e ".[peers]"`.

Command: python -m experiments prox_cost
"""

from __future__ import annotations

import dataclasses
import importlib
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np

import jaxreg
from experiments.cost._catalogue import catalogue, slope
from experiments.harness.contract import Row

PACKAGES = ("numba", "jaxopt", "scipy")
COMPILING = "compiling it"
COMPILE_LIMIT = 5.0


@dataclasses.dataclass(frozen=True)
class Config:
    """Entries of the timed array, rounds timed in turn, leaves of the compiled tree."""

    entries: int = 1_000_000
    rounds: int = 21
    leaves: int = 100
    side: int = 64


QUICK = Config(entries=20_000, rounds=3, leaves=2, side=8)


class Duel(NamedTuple):
    """Two calls on the same input, and how far apart their answers are."""

    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    error: Callable[[Any, Any], float]


LIMITS = {
    ("L1", "a numba loop on all cores"): 1.5,
    ("L1", "adding 1 in XLA"): 1.5,
    ("L1Ball", "optax.projections"): 1 / 20,
    ("L1Ball", "jaxopt.projection"): 1 / 20,
    ("TotalVariation", "a numba loop"): 3.0,
    ("TopK", "numpy.partition"): 5.0,
    ("SLOPE", "NumPy's sort, SciPy's isotonic"): None,
}
# Float32 answers of two algorithms, of entries of size 1 to 5.
_TOLERANCE = 1e-3


def cells(config: Config) -> list[Row]:
    """One cell per comparison, then one per prox that is compiled."""
    names = catalogue(config.side**2)
    pairs = [*LIMITS, *((name, COMPILING) for name in names)]
    return [{"operator": name, "against": against} for name, against in pairs]


def measure(config: Config, operator: str, against: str) -> Row:
    """The ratio of the medians of one interleaved run, or the seconds to compile."""
    if against == COMPILING:
        return {"compile_seconds": _seconds_to_compile(config, operator)}
    duel = _DUELS[operator](config, against)
    # Compiles both, and warms numba's threads up.
    error = duel.error(np.asarray(duel.ours()), np.asarray(duel.theirs()))
    pairs = [(_seconds(duel.ours), _seconds(duel.theirs)) for _ in range(config.rounds)]
    ours, theirs = map(statistics.median, zip(*pairs, strict=True))
    return {
        "milliseconds": 1e3 * ours,
        "their_milliseconds": 1e3 * theirs,
        "ratio": ours / theirs,
        "error": error,
    }


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def _seconds_to_compile(config: Config, operator: str) -> float:
    penalty = catalogue(config.side**2)[operator]
    leaf = jax.ShapeDtypeStruct((config.side, config.side), jnp.float32)
    tree = {f"leaf_{place}": leaf for place in range(config.leaves)}
    start = time.perf_counter()
    jax.jit(penalty.prox).lower(tree, 0.1).compile()
    return time.perf_counter() - start


def _duel(config: Config, penalty: jaxreg.Penalty, theirs: Callable[..., Any]) -> Duel:
    """Gaussian entries; `theirs` gets them as a NumPy and as a JAX array."""
    given = np.random.default_rng(0).normal(size=config.entries).astype(np.float32)
    ready, prox = jnp.asarray(given), jax.jit(penalty.prox)
    return Duel(
        ours=lambda: prox(ready, 1.0),
        theirs=lambda: theirs(given, ready),
        error=lambda ours, other: float(np.max(np.abs(ours - other))),
    )


def _duel_l1(config: Config, against: str) -> Duel:
    half = np.float32(0.5)
    loop = _peers().soft_threshold
    add = jax.jit(lambda entries: entries + 1)
    if against == "adding 1 in XLA":
        one_pass = _duel(config, jaxreg.L1(0.5), lambda _, ready: add(ready))
        return one_pass._replace(error=lambda ours, theirs: 0.0)
    return _duel(config, jaxreg.L1(0.5), lambda given, _: loop(given, half))


def _duel_l1_ball(config: Config, against: str) -> Duel:
    radius = 0.01 * config.entries
    library = _peers().L1_BALLS[against]
    return _duel(config, jaxreg.L1Ball(radius), lambda _, ready: library(ready, radius))


def _duel_total_variation(config: Config, against: str) -> Duel:
    loop, check = _peers().total_variation, _peers().total_variation_error
    duel = _duel(
        config, jaxreg.TotalVariation(1.0, axis=0), lambda given, _: loop(given, 1.0)
    )

    def error(ours: np.ndarray, other: np.ndarray) -> float:
        given = np.random.default_rng(0).normal(size=config.entries)
        # numba has miscompiled other spellings of this loop: its answer is checked.
        wrong = check(given.astype(np.float32), other, 1.0)
        return max(wrong, float(np.max(np.abs(ours - other))))

    return duel._replace(error=error)


def _duel_top_k(config: Config, against: str) -> Duel:
    count = config.entries // 10
    part = _peers().top_k
    duel = _duel(config, jaxreg.TopK(count=count), lambda given, _: part(given, count))

    def error(ours: np.ndarray, parted: np.ndarray) -> float:
        smallest = np.min(np.abs(ours[ours != 0]))
        return float(abs(smallest - parted[-count]))

    return duel._replace(error=error)


def _duel_slope(config: Config, against: str) -> Duel:
    penalty = slope(config.entries)
    strengths, both = np.asarray(penalty.strengths), _peers().slope
    return _duel(config, penalty, lambda given, _: both(given, strengths))


_DUELS = {
    "L1": _duel_l1,
    "L1Ball": _duel_l1_ball,
    "TotalVariation": _duel_total_variation,
    "TopK": _duel_top_k,
    "SLOPE": _duel_slope,
}


def _peers() -> Any:
    # Here and not above: planning and listing need neither numba nor jaxopt.
    return importlib.import_module("experiments.cost._peers")


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """The ratios beside their limits; of the compilations the five slowest."""
    ratios = [
        {**row, "limit": LIMITS[row["operator"], row["against"]], "met": _is_met(row)}
        for row in rows
        if row["against"] != COMPILING
    ]
    compiled = [row for row in rows if row["against"] == COMPILING]
    slowest = sorted(compiled, key=lambda row: -row["compile_seconds"])[:5]
    limit = {"limit": COMPILE_LIMIT}
    return [*ratios, *({**row, **limit, "met": _is_met(row)} for row in slowest)]


def _is_met(row: Row) -> bool | None:
    """Whether a row keeps its limit; None where none is set."""
    if row["against"] == COMPILING:
        return bool(row["compile_seconds"] <= COMPILE_LIMIT)
    limit = LIMITS[row["operator"], row["against"]]
    return None if limit is None else bool(row["ratio"] <= limit)


def _title(row: Row) -> str:
    if row["against"] == COMPILING:
        return f"compiling {row['operator']}"
    return f"{row['operator']} against {row['against']}"


def verdict(config: Config, rows: list[Row]) -> str:
    """What misses its limit, and the slowest compilation."""
    missed = [_title(row) for row in rows if _is_met(row) is False]
    apart = [row["operator"] for row in rows if row.get("error", 0) > _TOLERANCE]
    compiled = [row for row in rows if row["against"] == COMPILING]
    slowest = max(compiled, key=lambda row: row["compile_seconds"])
    word = "holds with conditions" if missed or apart else "holds"
    told = (
        f"{len(missed)} are missed: {', '.join(missed)}" if missed else "all are kept"
    )
    if apart:
        told += f"; answers that differ: {', '.join(apart)}"
    limited = sum(_is_met(row) is not None for row in rows)
    return (
        f"{word}: of {limited} limits, {told}. The slowest of {len(compiled)} "
        f"compilations for {config.leaves} leaves is that of {slowest['operator']}, "
        f"{slowest['compile_seconds']:.1f} seconds."
    )


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """The ratios with their limits, and the seconds to compile."""
    figure = matplotlib.figure.Figure(figsize=(10, 7.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    ratios = [row for row in reversed(rows) if row["against"] != COMPILING]
    names = [f"{row['operator']} against\n{row['against']}" for row in ratios]
    bars = left.barh(names, [row["ratio"] for row in ratios])
    left.bar_label(bars, fmt="%.3g", padding=3)
    for place, row in enumerate(ratios):
        limit = LIMITS[row["operator"], row["against"]]
        if limit is not None:
            left.plot([limit, limit], [place - 0.4, place + 0.4], color="tab:red")
    left.set_xscale("log")
    left.set_xlabel("time of a prox, multiples of theirs (red: limit)")
    left.margins(x=0.25)
    compiled = [row for row in reversed(rows) if row["against"] == COMPILING]
    right.barh(
        [row["operator"] for row in compiled],
        [row["compile_seconds"] for row in compiled],
    )
    right.set_xlabel(f"seconds to compile for {config.leaves} leaves")
    right.tick_params(axis="y", labelsize=7)
    return figure
