"""What does tuning the strength of L1 gain, and which way to choose it is best?

Question: A grid from `jaxreg.max_strength` down is fitted on every fold. How much worse
on test data are the worst strength of the grid and a fixed 0.01 (the Keras example of
the article) than the strength that cross-validation chooses? What do one standard
error, AIC, BIC, EBIC and stability selection choose? How flat is the curve?

Claim: lambda needs tuning.

Expected: the worst strength fits nothing, and 0.01 is right for some problems by luck.
The curve is flat for a third of a decade or more, and one standard error gives fewer
non-zeros for little error. Where the truth is sparse, the minimum keeps several times
too many features; EBIC of refits and stability selection find the truth.

Corrected: stability selection keeps nothing wrongly but misses half of a sparse truth:
half of the samples show less, and the bound on wrong features ends the grid early. AIC,
BIC and EBIC take the likelihood of shrunken weights, which counts against a sparse fit;
for the network, whose parameters are not its degrees of freedom, they choose far too
strong a penalty.

Cost: about 1 minute on 2 cores.

Command: python -m experiments choosing_strength
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics

import jax
import matplotlib.figure
import numpy as np

import jaxreg
from experiments.harness.contract import Row
from experiments.kit import stats
from experiments.strength import _choices, _strength_figure, _sweeps

DEFAULT = True


@dataclasses.dataclass(frozen=True)
class Config:
    """Linear fits to `tolerance`; a network by Adam inside `regularize`.

    The sparse truth has `relevant` weights of +-`size` among `features`, and noise of
    variance 1. Stability selection fits 2 * `pairs` halves at the `strong` strongest.
    """

    seeds: int = 10
    network_seeds: int = 5
    untuned: float = 0.01
    folds: int = 5
    strengths: int = 25
    ratio: float = 1e-3
    sparse_ratio: float = 0.01
    tolerance: float = 1e-5
    most: int = 10_000
    samples: int = 200
    features: int = 400
    relevant: int = 10
    size: float = 0.5
    test: int = 1000
    pairs: int = 25
    strong: int = 10
    threshold: float = 0.75
    false_positives: float = 1.0
    network_folds: int = 5
    network_strengths: int = 12
    network_ratio: float = 1e-4
    sizes: tuple[int, ...] = (64, 64, 32, 10)
    steps: int = 800
    batch: int = 64
    peak: float = 1e-2
    warmup: int = 80
    width: float = 0.05


QUICK = Config(
    seeds=1,
    network_seeds=1,
    folds=3,
    strengths=8,
    tolerance=1e-4,
    features=100,
    samples=100,
    pairs=5,
    strong=4,
    network_folds=2,
    network_strengths=4,
    steps=60,
    warmup=10,
)


def cells(config: Config) -> list[Row]:
    """One cell per problem and split."""
    return [
        {"problem": problem, "seed": seed}
        for problem in _sweeps.PROBLEMS
        for seed in range(
            config.network_seeds if problem == _sweeps.DIGITS else config.seeds
        )
    ]


def measure(config: Config, problem: str, seed: int) -> Row:
    """The sweep of one split, and what each way chooses."""
    is_linear = problem in _sweeps.LINEAR
    with jax.enable_x64(True) if is_linear else contextlib.nullcontext():
        split, truth = _sweeps.load(config, problem, seed)
        masks = _sweeps.folds(config, problem, split, seed)
        strengths = _sweeps.grid(config, problem, split, seed)
        way = _sweeps.DOWN if is_linear else _sweeps.COLD
        found = _sweeps.sweep(config, problem, way, seed, split, strengths, masks)
        samples, width = split.train_x.shape
        candidates = width if is_linear else _sweeps.kernel_entries(config)
        chosen = _choices.on_the_grid(strengths, found, samples, candidates, truth)
        if problem == _sweeps.SPARSE:
            chosen |= _choices.sets(config, split, strengths, found, truth, seed)
        curve = jaxreg.model_selection.validation_curve(found.validation[:-1, :-1])
        limit = curve.mean[curve.least] + curve.standard_error[curve.least]
        flat = strengths[:-1][curve.mean <= limit]
        return {
            "ways": list(chosen),
            "chosen": [
                [None if x is None or math.isnan(x) else x for x in one]
                for one in chosen.values()
            ],
            "strengths": strengths[:-1].tolist(),
            "curve": curve.mean.tolist(),
            "curve_se": curve.standard_error.tolist(),
            "test": found.test[:-1, -1].tolist(),
            "zero_share": (1 - found.nonzeros[:-1, -1] / candidates).tolist(),
            "flat_decades": float(np.log10(flat[0] / flat[-1])),
        }


def _flat(rows: list[Row]) -> list[Row]:
    """One row per problem, seed and way."""
    names = _choices.Chosen._fields
    return [
        {
            "problem": row["problem"],
            "way": way,
            "seed": row["seed"],
            **dict(zip(names, numbers, strict=True)),
        }
        for row in rows
        for way, numbers in zip(row["ways"], row["chosen"], strict=True)
    ]


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """Means over seeds per way to choose, and the error over that of the tuned."""
    table = []
    flat = _flat(rows)
    for problem in _sweeps.PROBLEMS:
        mine = [row for row in flat if row["problem"] == problem]
        base = _mean(mine, _choices.LEAST, "test_error")
        for way in dict.fromkeys(row["way"] for row in mine):
            ours = [row for row in mine if row["way"] == way]
            measured = [
                name
                for name in _choices.Chosen._fields
                if all(row[name] is not None for row in ours)
            ]
            (means,) = stats.over_seeds(ours, ("problem", "way"), measured)
            means["times_the_error"] = means["test_error"] / base
            table.append(means)
    return table


def _mean(rows: list[Row], way: str, column: str) -> float:
    return statistics.fmean(row[column] for row in rows if row["way"] == way)


def _excess(rows: list[Row], way: str) -> tuple[float, bool]:
    """Times the error of the tuned strength, and whether by more than 2 errors."""
    errors = {
        name: [row["test_error"] for row in rows if row["way"] == name]
        for name in (way, _choices.LEAST)
    }
    pairs = zip(errors[way], errors[_choices.LEAST], strict=True)
    gaps = [other - tuned for other, tuned in pairs]
    ratio = statistics.fmean(errors[way]) / statistics.fmean(errors[_choices.LEAST])
    return ratio, statistics.fmean(gaps) > 2 * stats.standard_error(gaps)


def verdict(config: Config, rows: list[Row]) -> str:
    """What the worst strength and the untuned one cost; what a set is found by."""
    flat = _flat(rows)
    by_problem = {
        problem: [row for row in flat if row["problem"] == problem]
        for problem in _sweeps.PROBLEMS
    }
    worst, untuned = (
        {problem: _excess(mine, way) for problem, mine in by_problem.items()}
        for way in (_choices.WORST, _choices.UNTUNED)
    )
    worse = sum(is_worse for _, is_worse in untuned.values())
    all_worst = all(is_worse for _, is_worse in worst.values())
    word = "holds" if worse == len(untuned) else "holds with conditions"
    word = word if all_worst and worse else "false"
    decades = [
        statistics.fmean(row["flat_decades"] for row in rows if row["problem"] == name)
        for name in _sweeps.PROBLEMS
    ]
    sparse = by_problem[_sweeps.SPARSE]
    wrong = "; ".join(
        f"{_mean(sparse, way, 'false_positives'):.1f} and "
        f"{_mean(sparse, way, 'false_negatives'):.1f} by {way}"
        for way in (_choices.LEAST, _choices.REFITTED, _choices.STABLE)
    )
    return (
        f"{word}: the worst strength of the grid has {_span(worst)} times the test "
        f"error of the cross-validated one, an untuned {config.untuned:g} "
        f"{_span(untuned)} times (worse in {worse} of {len(untuned)} problems). "
        f"Strengths over {min(decades):.1f} to {max(decades):.1f} decades are within "
        "one standard error. Features kept for nothing and missed, of a sparse truth: "
        f"{wrong}."
    )


def _span(excesses: dict[str, tuple[float, bool]]) -> str:
    ratios = [ratio for ratio, _ in excesses.values()]
    return f"{min(ratios):.2g} to {max(ratios):.2g}"


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """Curves with the choices, the front of the network, the sets of features."""
    return _strength_figure.draw(rows, _flat(rows))
