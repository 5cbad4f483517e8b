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

Rule: a strength is worse if its mean test error is above that of the cross-validated
one by more than twice the standard error of the difference. False unless the worst of
the grid is worse in all problems and 0.01 in some; holds if 0.01 is in all, with
conditions if not.

Corrected: stability selection keeps nothing wrongly but misses half of a sparse truth:
half of the samples show less, and the bound on wrong features ends the grid early. AIC,
BIC and EBIC take the likelihood of shrunken weights, which counts against a sparse fit;
for the network, whose parameters are not its degrees of freedom, they choose far too
strong a penalty.

Cost: about 1 minute on 2 cores.

Command: python -m experiments choosing_strength
"""

import contextlib
import dataclasses
import math
import statistics
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes

import jaxreg
from experiments.harness.contract import Row
from experiments.kit import plotting, stats
from experiments.strength import _sweeps

DEFAULT = True

LEAST, ONE_ERROR = "least validation error", "one standard error"
AIC, BIC, EBIC = "AIC", "BIC", "EBIC"
UNTUNED, BEST, WORST = "untuned, 0.01", "best on the test set", "worst of the grid"
REFITTED, STABLE = "EBIC of refits", "stability selection"

# The model, and the error measured.
_TITLES = {
    _sweeps.DIABETES: ("diabetes, lasso", "mean squared error"),
    _sweeps.CANCER: ("breast cancer, logistic L1", "cross-entropy"),
    _sweeps.SPARSE: ("sparse truth, lasso", "mean squared error"),
    _sweeps.DIGITS: ("digits, MLP", "share of wrong labels"),
}
_LOWEST = 80
_MARKS = {LEAST: "o", ONE_ERROR: "s", AIC: "^", BIC: "v", EBIC: "D", UNTUNED: "X"}


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
    """The sweep of one split, and the choice of each way."""
    is_linear = problem in _sweeps.LINEAR
    with jax.enable_x64(True) if is_linear else contextlib.nullcontext():
        split, truth = _sweeps.load(config, problem, seed)
        masks = _sweeps.folds(config, problem, split, seed)
        strengths = _sweeps.grid(config, problem, split, seed)
        way = _sweeps.DOWN if is_linear else _sweeps.COLD
        fits = _sweeps.sweep(config, problem, way, seed, split, strengths, masks)
        samples, width = split.train_x.shape
        candidates = width if is_linear else _sweeps.kernel_entries(config)
        chosen = _on_the_grid(strengths, fits, samples, candidates, truth)
        if problem == _sweeps.SPARSE:
            chosen |= _sets(config, split, strengths, fits, truth, seed)
        curve = jaxreg.model_selection.validation_curve(fits.validation[:-1, :-1])
        limit = curve.mean[curve.least] + curve.standard_error[curve.least]
        flat = strengths[:-1][curve.mean <= limit]
        return {
            "ways": list(chosen),
            "chosen": [
                [None if x is None or math.isnan(x) else x for x in choice]
                for choice in chosen.values()
            ],
            "strengths": strengths[:-1].tolist(),
            "curve": curve.mean.tolist(),
            "curve_se": curve.standard_error.tolist(),
            "test": fits.test[:-1, -1].tolist(),
            "zero_share": (1 - fits.nonzeros[:-1, -1] / candidates).tolist(),
            "flat_decades": float(np.log10(flat[0] / flat[-1])),
        }


class Chosen(NamedTuple):
    """A strength (NaN for a set of features), its test error and the features kept."""

    strength: float
    test_error: float
    nonzeros: int
    false_positives: int | None
    false_negatives: int | None


def indices(fits: _sweeps.Fits, samples: int, candidates: int) -> dict[str, int]:
    """The index of the strength that each way chooses; the last one is untuned.

    Information criteria leave out fits with more than half as many non-zeros as
    samples, unless all have.
    """
    whole = _sweeps.Fits(*(np.asarray(leaf)[:-1, -1] for leaf in fits))
    curve = jaxreg.model_selection.validation_curve(fits.validation[:-1, :-1])
    criteria = jaxreg.model_selection.information_criteria(
        whole.likelihood, whole.nonzeros, samples, candidates
    )
    is_left_out = whole.nonzeros > samples / 2
    if is_left_out.all():
        is_left_out[:] = False
    ranked = {
        name: int(np.argmin(np.where(is_left_out, np.inf, numbers)))
        for name, numbers in zip((AIC, BIC, EBIC), criteria, strict=True)
    }
    return {
        LEAST: int(curve.least),
        ONE_ERROR: int(curve.one_standard_error),
        **ranked,
        UNTUNED: len(whole.test),
        BEST: int(np.argmin(whole.test)),
        WORST: int(np.argmax(whole.test)),
    }


def _on_the_grid(
    strengths: Any, fits: _sweeps.Fits, samples: int, candidates: int, truth: Any
) -> dict[str, Chosen]:
    """The choice of each way among the fits, and the untuned strength."""
    chosen = {}
    for way, index in indices(fits, samples, candidates).items():
        kept = np.asarray(fits.weights[index, -1]) != 0
        chosen[way] = Chosen(
            float(strengths[index]),
            float(fits.test[index, -1]),
            int(fits.nonzeros[index, -1]),
            *_mistakes(kept, truth),
        )
    return chosen


def _sets(
    config: Config,
    split: Any,
    strengths: Any,
    fits: _sweeps.Fits,
    truth: Any,
    seed: int,
) -> dict[str, Chosen]:
    """Sets of features by EBIC of refits and by stability selection, refitted."""
    supports = np.unique(np.asarray(fits.weights[:-1, -1]) != 0, axis=0)
    samples, candidates = split.train_x.shape
    small = [kept for kept in supports if kept.sum() <= samples / 2]
    refits = [_refit(split, kept) for kept in small]
    likelihood = np.array([samples / 2 * np.log(train) for train, _ in refits])
    counts = np.array([kept.sum() for kept in small])
    ebic = jaxreg.model_selection.information_criteria(
        likelihood, counts, samples, candidates
    ).ebic
    best = int(np.argmin(ebic))
    stable = _stable(config, split, strengths, seed)
    return {
        REFITTED: _as_chosen(small[best], refits[best][1], truth),
        STABLE: _as_chosen(stable, _refit(split, stable)[1], truth),
    }


def _stable(config: Config, split: Any, strengths: Any, seed: int) -> np.ndarray:
    """Stability selection on complementary half samples, at the strong strengths."""
    samples = len(split.train_y)
    keys = jax.random.split(jax.random.key(seed), config.pairs)
    halves = jax.vmap(lambda key: jaxreg.model_selection.fold_masks(key, 2, samples))(
        keys
    )
    masks = jnp.reshape(halves, (-1, samples))
    head = strengths[: config.strong]
    fits = _sweeps.sweep(config, _sweeps.SPARSE, _sweeps.DOWN, seed, split, head, masks)
    selection = jaxreg.model_selection.stability_selection(
        fits.weights, config.threshold, config.false_positives
    )
    return np.asarray(selection.is_stable)


def _refit(split: Any, kept: np.ndarray) -> tuple[float, float]:
    """Training and test error of least squares on these features."""
    ones = [np.ones((len(x), 1)) for x in (split.train_x, split.test_x)]
    train = np.concatenate([ones[0], split.train_x[:, kept]], axis=1)
    test = np.concatenate([ones[1], split.test_x[:, kept]], axis=1)
    weights = np.linalg.lstsq(train, split.train_y)[0]
    pairs = ((train, split.train_y), (test, split.test_y))
    errors = [float(np.mean((x @ weights - y) ** 2)) for x, y in pairs]
    return errors[0], errors[1]


def _as_chosen(kept: np.ndarray, test_error: float, truth: Any) -> Chosen:
    return Chosen(np.nan, test_error, int(kept.sum()), *_mistakes(kept, truth))


def _mistakes(kept: np.ndarray, truth: Any) -> tuple[int | None, int | None]:
    if not len(truth):
        return None, None
    return int(np.sum(kept & (truth == 0))), int(np.sum(~kept & (truth != 0)))


def _flat(rows: list[Row]) -> list[Row]:
    """One row per problem, seed and way."""
    names = Chosen._fields
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
    """Means over seeds by way to choose, and the error over that of the tuned."""
    table = []
    flat = _flat(rows)
    for problem in _sweeps.PROBLEMS:
        mine = stats.select(flat, problem=problem)
        base = _mean(mine, LEAST, "test_error")
        for way in dict.fromkeys(row["way"] for row in mine):
            ours = stats.select(mine, way=way)
            measured = [
                name
                for name in Chosen._fields
                if all(row[name] is not None for row in ours)
            ]
            (means,) = stats.over_seeds(ours, ("problem", "way"), measured)
            means["times_the_error"] = means["test_error"] / base
            table.append(means)
    return table


def _mean(rows: list[Row], way: str, column: str) -> float:
    return statistics.fmean(row[column] for row in stats.select(rows, way=way))


def _excess(rows: list[Row], way: str) -> tuple[float, bool]:
    """The error over that of the tuned strength, and whether 2 errors above it."""
    errors = {
        name: [row["test_error"] for row in stats.select(rows, way=name)]
        for name in (way, LEAST)
    }
    pairs = zip(errors[way], errors[LEAST], strict=True)
    gaps = [other - tuned for other, tuned in pairs]
    ratio = statistics.fmean(errors[way]) / statistics.fmean(errors[LEAST])
    return ratio, statistics.fmean(gaps) > 2 * stats.standard_error(gaps)


def verdict(config: Config, rows: list[Row]) -> str:
    """Errors of the worst and the untuned strength, and of the chosen sets."""
    flat = _flat(rows)
    by_problem = {
        problem: stats.select(flat, problem=problem) for problem in _sweeps.PROBLEMS
    }
    worst, untuned = (
        {problem: _excess(mine, way) for problem, mine in by_problem.items()}
        for way in (WORST, UNTUNED)
    )
    worse = sum(is_worse for _, is_worse in untuned.values())
    all_worst = all(is_worse for _, is_worse in worst.values())
    word = "holds" if worse == len(untuned) else "holds with conditions"
    word = word if all_worst and worse else "false"
    decades = [
        statistics.fmean(
            row["flat_decades"] for row in stats.select(rows, problem=name)
        )
        for name in _sweeps.PROBLEMS
    ]
    sparse = by_problem[_sweeps.SPARSE]
    wrong = "; ".join(
        f"{_mean(sparse, way, 'false_positives'):.1f} and "
        f"{_mean(sparse, way, 'false_negatives'):.1f} by {way}"
        for way in (LEAST, REFITTED, STABLE)
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
    chosen = _flat(rows)
    figure = matplotlib.figure.Figure(figsize=(13, 7.6), layout="constrained")
    panels = list(figure.subplots(2, 3).flat)
    for axes, problem in zip(panels, _sweeps.PROBLEMS, strict=False):
        curves = stats.select(rows, problem=problem)
        _plot_curve(axes, curves, stats.select(chosen, problem=problem))
        title, error = _TITLES[problem]
        axes.set_title(title, fontsize=10)
        axes.set_ylabel(error, fontsize=9)
        axes.set_yscale("log" if problem == _sweeps.DIGITS else "linear")
    _plot_front(panels[4], stats.select(rows, problem=_sweeps.DIGITS))
    _plot_sets(panels[5], stats.select(chosen, problem=_sweeps.SPARSE))
    panels[0].legend(fontsize=7)
    return figure


def _plot_curve(axes: Axes, curves: list[Row], chosen: list[Row]) -> None:
    """Means over seeds; each choice at its mean strength and mean test error."""
    mean = {
        name: np.mean([row[name] for row in curves], axis=0)
        for name in ("strengths", "curve", "curve_se", "test")
    }
    x = mean["strengths"]
    axes.errorbar(
        x,
        mean["curve"],
        mean["curve_se"],
        fmt=".-",
        color="0.6",
        ms=3,
        capsize=1.5,
        label="validation, one standard error",
    )
    axes.plot(x, mean["test"], "-", color="C0", label="test")
    for color, (way, mark) in enumerate(_MARKS.items()):
        mine = stats.select(chosen, way=way)
        strength = np.exp(np.mean([np.log(row["strength"]) for row in mine]))
        error = np.mean([row["test_error"] for row in mine])
        axes.plot(strength, error, mark, color=f"C{color + 1}", ms=7, label=way)
    axes.set_xscale("log")
    axes.set_xlabel("strength", fontsize=9)


def _plot_front(axes: Axes, curves: list[Row]) -> None:
    """A point per strength and seed; the front of the means is joined."""
    for row in curves:
        accuracy = [100 * (1 - error) for error in row["test"]]
        axes.plot([100 * x for x in row["zero_share"]], accuracy, ".", color="0.6")
    sparsity, accuracy = (
        100 * np.mean([row[name] for row in curves], axis=0)
        for name in ("zero_share", "test")
    )
    accuracy = 100 - accuracy
    front = np.asarray(
        jaxreg.model_selection.pareto_front(
            jnp.asarray(sparsity), jnp.asarray(accuracy)
        )
    )
    axes.plot(sparsity[~front], accuracy[~front], "o", mfc="none", color="C0")
    axes.plot(
        sparsity[front], accuracy[front], "o-", color="C3", label="front of means"
    )
    axes.set_xlabel("zero weights, %", fontsize=9)
    axes.set_ylim(_LOWEST, 100)
    axes.set_ylabel(f"test accuracy, % (below {_LOWEST} not shown)", fontsize=9)
    axes.set_title("digits, MLP: accuracy and sparsity", fontsize=10)
    axes.legend(fontsize=8)


def _plot_sets(axes: Axes, chosen: list[Row]) -> None:
    """Features kept wrongly, and missed, by way; a point per seed."""
    ways = list(dict.fromkeys(row["way"] for row in chosen))
    for column, mark, shift in (
        ("false_positives", "o", 0),
        ("false_negatives", "x", 1),
    ):
        plotting.strip(
            axes,
            ways,
            [(row["way"], row[column]) for row in chosen],
            label=column.replace("_", " "),
            marker=mark,
            shift=0.12 - 0.24 * shift,
            size=4,
            alpha=0.6,
        )
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(-0.3, 4000)
    plotting.name_lines(axes, ways)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_xlabel("features", fontsize=9)
    axes.set_title("sparse truth, lasso: wrong features", fontsize=10)
    axes.legend(fontsize=8, loc="lower right")
