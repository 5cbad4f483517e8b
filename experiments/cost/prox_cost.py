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
from experiments.cost._steps import seconds_of
from experiments.harness.contract import Row
from experiments.kit import stats

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
    """Two calls on the same input, and the distance of their answers."""

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


def slope(size: int) -> jaxreg.SLOPE:
    """SLOPE with strengths that fall from 1 to 0.5."""
    return jaxreg.SLOPE(jnp.linspace(1.0, 0.5, size))


def catalogue(size: int) -> dict[str, jaxreg.Penalty]:
    """One instance of each, for leaves of two axes with `size` entries.

    The first axis has at least 4 entries.
    """
    return {**_elementwise(), **_structure(size), **_constraints()}


def _elementwise() -> dict[str, jaxreg.Penalty]:
    return {
        "L1": jaxreg.L1(1.0),
        "L2": jaxreg.L2(1.0),
        "ElasticNet": jaxreg.ElasticNet(1.0, 1.0),
        "Huber": jaxreg.Huber(1.0, knot=1.0),
        "MCP": jaxreg.MCP(1.0, knot=2.0),
        "SCAD": jaxreg.SCAD(1.0, knot=3.7),
        "LogSum": jaxreg.LogSum(1.0, eps=1.0),
        "LHalf": jaxreg.Lp(1.0, 0.5),
        "Lp": jaxreg.Lp(1.0, power=0.75),
        "L0": jaxreg.L0(1.0),
        "TransformedL1": jaxreg.TransformedL1(1.0, scale=1.0),
        "CappedL1": jaxreg.CappedL1(1.0, knot=1.0),
        "PiecewiseAffine": jaxreg.PiecewiseAffine.to_grid(1.0, (-1.0, 0.0, 1.0)),
    }


def _structure(size: int) -> dict[str, jaxreg.Penalty]:
    l1, mcp = jaxreg.L1(1.0), jaxreg.MCP(1.0, knot=2.0)
    return {
        "GroupLasso": jaxreg.GroupLasso(1.0, group_axis=0),
        "SparseGroupLasso": jaxreg.SparseGroupLasso(1.0, 1.0, group_axis=0),
        "LInf": jaxreg.LInf(1.0, group_axis=0),
        "SLOPE": slope(size),
        "TotalVariation": jaxreg.TotalVariation(1.0, axis=0),
        "FusedLasso": jaxreg.FusedLasso(1.0, 1.0, axis=0),
        "TrendFilter": jaxreg.TrendFilter(1.0, order=1, axis=0),
        "NuclearNorm": jaxreg.NuclearNorm(1.0),
        "grouped(MCP)": jaxreg.grouped(mcp, group_axis=0),
        "spectral(MCP)": jaxreg.spectral(mcp),
        "nonnegative(L1)": jaxreg.nonnegative(l1),
        "envelope(L1)": jaxreg.envelope(l1, 1.0),
    }


def _constraints() -> dict[str, jaxreg.Penalty]:
    return {
        "NonNegative": jaxreg.NonNegative(),
        "Box": jaxreg.Box(-1.0, 1.0),
        "L1Ball": jaxreg.L1Ball(1.0),
        "L2Ball": jaxreg.L2Ball(1.0),
        "Simplex": jaxreg.Simplex(),
        "MinMaxNorm": jaxreg.MinMaxNorm(0.5, 1.0, group_axis=1),
        "UnitNorm": jaxreg.UnitNorm(group_axis=1),
        "TopK": jaxreg.TopK(fraction=0.1),
        "TopK over the tree": jaxreg.TopK(fraction=0.1, scope="tree"),
        "NM": jaxreg.NM(2, 4),
        "RankAtMost": jaxreg.RankAtMost(2),
        "SpectralBall": jaxreg.SpectralBall(1.0),
        "Orthogonal": jaxreg.Orthogonal(),
    }


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
    # Compiles both, and starts numba's threads.
    error = duel.error(np.asarray(duel.ours()), np.asarray(duel.theirs()))
    calls = (duel.ours, duel.theirs)
    pairs = [[seconds_of(call, 1) for call in calls] for _ in range(config.rounds)]
    ours, theirs = map(statistics.median, zip(*pairs, strict=True))
    return {
        "milliseconds": 1e3 * ours,
        "their_milliseconds": 1e3 * theirs,
        "ratio": ours / theirs,
        "error": error,
    }


def _seconds_to_compile(config: Config, operator: str) -> float:
    penalty = catalogue(config.side**2)[operator]
    leaf = jax.ShapeDtypeStruct((config.side, config.side), jnp.float32)
    tree = {f"leaf_{index}": leaf for index in range(config.leaves)}
    start = time.perf_counter()
    jax.jit(penalty.prox).lower(tree, 0.1).compile()
    return time.perf_counter() - start


def _duel(config: Config, penalty: jaxreg.Penalty, theirs: Callable[..., Any]) -> Duel:
    """Gaussian entries; `theirs` gets them as a NumPy and as a JAX array."""
    entries = np.random.default_rng(0).normal(size=config.entries).astype(np.float32)
    ready, prox = jnp.asarray(entries), jax.jit(penalty.prox)
    return Duel(
        ours=lambda: prox(ready, 1.0),
        theirs=lambda: theirs(entries, ready),
        error=lambda ours, theirs: float(np.max(np.abs(ours - theirs))),
    )


def _duel_l1(config: Config, against: str) -> Duel:
    half = np.float32(0.5)
    loop = _peers().soft_threshold
    add = jax.jit(lambda entries: entries + 1)
    if against == "adding 1 in XLA":
        one_pass = _duel(config, jaxreg.L1(0.5), lambda _, ready: add(ready))
        return one_pass._replace(error=lambda ours, theirs: 0.0)
    return _duel(config, jaxreg.L1(0.5), lambda x, _: loop(x, half))


def _duel_l1_ball(config: Config, against: str) -> Duel:
    radius = 0.01 * config.entries
    library = _peers().L1_BALLS[against]
    return _duel(config, jaxreg.L1Ball(radius), lambda _, ready: library(ready, radius))


def _duel_total_variation(config: Config, against: str) -> Duel:
    loop, check = _peers().total_variation, _peers().total_variation_error
    duel = _duel(config, jaxreg.TotalVariation(1.0, axis=0), lambda x, _: loop(x, 1.0))

    def error(ours: np.ndarray, theirs: np.ndarray) -> float:
        entries = np.random.default_rng(0).normal(size=config.entries)
        # numba has miscompiled other spellings of this loop: its answer is checked.
        wrong = check(entries.astype(np.float32), theirs, 1.0)
        return max(wrong, float(np.max(np.abs(ours - theirs))))

    return duel._replace(error=error)


def _duel_top_k(config: Config, against: str) -> Duel:
    count = config.entries // 10
    part = _peers().top_k
    duel = _duel(config, jaxreg.TopK(count=count), lambda x, _: part(x, count))

    def error(ours: np.ndarray, parted: np.ndarray) -> float:
        smallest = np.min(np.abs(ours[ours != 0]))
        return float(abs(smallest - parted[-count]))

    return duel._replace(error=error)


def _duel_slope(config: Config, against: str) -> Duel:
    penalty = slope(config.entries)
    strengths, both = np.asarray(penalty.strengths), _peers().slope
    return _duel(config, penalty, lambda x, _: both(x, strengths))


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
    """The ratios with their limits, and the five slowest compilations."""
    ratios = [
        {**row, "limit": LIMITS[row["operator"], row["against"]], "met": _is_met(row)}
        for row in rows
        if row["against"] != COMPILING
    ]
    compiled = stats.select(rows, against=COMPILING)
    slowest = sorted(compiled, key=lambda row: -row["compile_seconds"])[:5]
    limit = {"limit": COMPILE_LIMIT}
    return [*ratios, *({**row, **limit, "met": _is_met(row)} for row in slowest)]


def _is_met(row: Row) -> bool | None:
    """True if a row keeps its limit; None if it has none."""
    if row["against"] == COMPILING:
        return bool(row["compile_seconds"] <= COMPILE_LIMIT)
    limit = LIMITS[row["operator"], row["against"]]
    return None if limit is None else bool(row["ratio"] <= limit)


def _title(row: Row) -> str:
    if row["against"] == COMPILING:
        return f"compiling {row['operator']}"
    return f"{row['operator']} against {row['against']}"


def verdict(config: Config, rows: list[Row]) -> str:
    """The comparisons that miss their limits, and the slowest compilation."""
    missed = [_title(row) for row in rows if _is_met(row) is False]
    apart = [row["operator"] for row in rows if row.get("error", 0) > _TOLERANCE]
    compiled = stats.select(rows, against=COMPILING)
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
    for index, row in enumerate(ratios):
        limit = LIMITS[row["operator"], row["against"]]
        if limit is not None:
            left.plot([limit, limit], [index - 0.4, index + 0.4], color="tab:red")
    left.set_xscale("log")
    left.set_xlabel("time of a prox, multiples of theirs (red: limit)")
    left.margins(x=0.25)
    compiled = stats.select(rows[::-1], against=COMPILING)
    right.barh(
        [row["operator"] for row in compiled],
        [row["compile_seconds"] for row in compiled],
    )
    right.set_xlabel(f"seconds to compile for {config.leaves} leaves")
    right.tick_params(axis="y", labelsize=7)
    return figure
