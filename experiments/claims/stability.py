"""How far does a fit move when a few samples change?

Question: Weights of linear models with L1, with an elastic net and with L2. What moves
when 5 of 100 samples are left out, of a pair of features that hardly differ? When one
of n samples is replaced? Which of two equal columns gets the weight? How alike are the
features chosen on bootstrap samples of scikit-learn's diabetes data (with squares and
products, 64 features) and of its breast cancer data (30 features, labels of +-1)?

Claim: L2 regularization is stable where L1 regularization is not.

Expected: Holds, but for the choice of features. With 5 samples left out the weights
move some 20 times as much with L1. A replaced sample moves weights with L2 or an
elastic net by about 1/n (Bousquet and Elisseeff 2002), with L1 by the whole weight at
any n (Xu, Caramanis and Mannor 2012: no sparse algorithm is uniformly stable). Equal
columns get equal weights with L2 and the elastic net (Zou and Hastie 2005, theorem 1),
with L1 what the start says. L2 chooses no features; whether an elastic net chooses more
alike than L1 depends on the data.

Rule: false unless a weight moves more than 5 times as much with L1 as with L2 when
samples are left out, more than 10 times when one of the most is replaced, and equal
columns differ by less than 1e-6 with the elastic net and by more with L1. Then holds if
the elastic net chooses more alike than L1 on both data sets, with conditions if not.

Cost: about 10 seconds on 2 cores.

Command: python -m experiments stability
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
from sklearn import datasets

import jaxreg
from experiments.harness.contract import Row
from experiments.kit import linear_models, stats

DEFAULT = True

DROP, REPLACE, TWINS = "samples left out", "one sample replaced", "equal columns"
DIABETES, CANCER = "bootstrap, diabetes", "bootstrap, breast cancer"
METHODS = ("L1", "elastic net", "L2")
_STYLES = dict(zip(METHODS, ("o-", "s-", "D-"), strict=True))
_MEANINGS = {
    DROP: "standard deviation of a weight",
    REPLACE: "change of a weight",
    TWINS: "difference of the equal columns' weights",
    DIABETES: "stability of the chosen features",
    CANCER: "stability of the chosen features",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """The strengths, as scikit-learn's alpha, and how often samples change.

    The elastic net has L1 of strength `alpha`, and L2 beside it as strong as
    `Ridge(n * alpha2)`, which alone is the third method.
    """

    seeds: int = 5
    alpha: float = 0.1
    alpha2: float = 1.0
    noise: float = 0.35
    samples: int = 100
    dropped: int = 5
    apart: float = 0.02
    repeats: int = 50
    sizes: tuple[int, ...] = (50, 100, 200, 400, 800)
    starts: int = 20
    bootstraps: int = 20
    bootstrap_alpha: float = 0.05


QUICK = Config(seeds=2, repeats=10, sizes=(50, 400), starts=4, bootstraps=4)


def cells(config: Config) -> list[Row]:
    """One cell per part, method, number of samples and seed."""
    sizes = {DROP: (config.samples,), REPLACE: config.sizes, TWINS: (442,)}
    sizes |= {DIABETES: (442,), CANCER: (569,)}
    return [
        {"part": part, "method": method, "samples": samples, "seed": seed}
        for part in sizes
        for method in METHODS
        if method != "L2" or not part.startswith("bootstrap")
        for samples in sizes[part]
        for seed in range(config.seeds)
    ]


def measure(config: Config, part: str, method: str, samples: int, seed: int) -> Row:
    """Compares fits to changed data, or from different starts."""
    rng = np.random.default_rng(seed)
    is_bootstrap = part.startswith("bootstrap")
    alpha = config.bootstrap_alpha if is_bootstrap else config.alpha
    penalty = _penalty(method, alpha, config.alpha2)
    make = {DROP: _dropped, REPLACE: _replaced, TWINS: _twins}.get(part, _bootstrapped)
    designs, answers, starts = make(config, part, samples, rng)
    with jax.enable_x64(True):
        count = designs.shape[1]
        grams = np.einsum("bni,bnj->bij", designs, designs) / count
        targets = np.einsum("bni,bn->bi", designs, answers) / count
        fits = jax.vmap(linear_models.fit_gram, in_axes=(None, 0, 0, 0))
        weights = np.asarray(fits(penalty, grams, targets, starts).params)
        forces = np.einsum("bij,bj->bi", grams, weights) - targets
        kkt = jnp.max(penalty.stationarity(jnp.asarray(weights), jnp.asarray(forces)))
    spread = {DROP: _deviation, REPLACE: _jump, TWINS: _gap}.get(
        part, selection_stability
    )
    return {
        "spread": spread(weights),
        "nonzeros": float(np.mean(np.sum(weights != 0, axis=1))),
        "kkt": float(kkt),
        "from_sklearn": _from_sklearn(
            part, penalty, designs[0], answers[0], weights[0]
        ),
    }


def _penalty(method: str, alpha: float, alpha2: float) -> Any:
    match method:
        case "L1":
            return jaxreg.L1(alpha)
        case "L2":
            return jaxreg.L2(alpha2 / 2)
    return jaxreg.ElasticNet(alpha, alpha2 / 2)


def _dropped(config: Config, part: str, samples: int, rng: Any) -> Any:
    """A pair of features that hardly differ, both with weight 1."""
    common = rng.normal(size=(samples, 1))
    design = common + config.apart * rng.normal(size=(samples, 2))
    answers = design.sum(axis=1) + config.noise * rng.normal(size=samples)
    kept = [rng.permutation(samples)[config.dropped :] for _ in range(config.repeats)]
    return design[kept], answers[kept], np.zeros((len(kept), 2))


def _replaced(config: Config, part: str, samples: int, rng: Any) -> Any:
    """Two features that differ in the last sample alone, and the same mirrored."""
    common = rng.normal(size=(samples - 1, 1))
    design = np.vstack([np.hstack([common, common]), [[3.0, 1.0]]])
    answers = np.append(
        2 * common[:, 0] + config.noise * rng.normal(size=samples - 1), 6
    )
    designs = np.stack([design, design[:, ::-1]])
    return designs, np.stack([answers, answers]), np.zeros((2, 2))


def _twins(config: Config, part: str, samples: int, rng: Any) -> Any:
    """The diabetes data with its column bmi twice, from random starts."""
    x, y = _standardized(*datasets.load_diabetes(return_X_y=True))
    design = np.hstack([x[:, 2:3], x])[:, [0, 3, 1, 2, *range(4, 11)]]
    shape = (config.starts, design.shape[1])
    starts = rng.normal(size=shape)
    return (
        np.broadcast_to(design, (config.starts, *design.shape)),
        np.broadcast_to(y, (config.starts, len(y))),
        starts,
    )


def _bootstrapped(config: Config, part: str, samples: int, rng: Any) -> Any:
    if part == DIABETES:
        x, y = datasets.load_diabetes(return_X_y=True)
        # Efron et al. 2004: sex has two values, and its square says nothing new.
        pairs = [(i, j) for i in range(10) for j in range(i, 10) if (i, j) != (1, 1)]
        x = x / x.std(axis=0)
        x = np.hstack([x, np.stack([x[:, i] * x[:, j] for i, j in pairs], axis=1)])
    else:
        x, y = datasets.load_breast_cancer(return_X_y=True)
    x, y = _standardized(x, y)
    drawn = rng.integers(len(x), size=(config.bootstraps, len(x)))
    return x[drawn], y[drawn], np.zeros((config.bootstraps, x.shape[1]))


def _standardized(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (x - x.mean(axis=0)) / x.std(axis=0), (y - y.mean()) / y.std()


def _deviation(weights: np.ndarray) -> float:
    return float(np.mean(np.std(weights, axis=0, ddof=1)))


def _jump(weights: np.ndarray) -> float:
    return float(np.max(np.abs(weights[0] - weights[1])))


def _gap(weights: np.ndarray) -> float:
    return float(np.max(np.abs(weights[:, 0] - weights[:, 1])))


def selection_stability(weights: np.ndarray) -> float:
    """The similarity of the supports of rows of weights, beyond chance."""
    return stats.selection_stability(weights != 0)


def _from_sklearn(part: str, penalty: Any, x: Any, y: Any, weights: Any) -> float:
    theirs = linear_models.reference(linear_models.squared(len(x)), penalty, x, y)
    if part == TWINS:
        # Only the sum of the two weights is determined.
        theirs, weights = (np.append(w[0] + w[1], w[2:]) for w in (theirs, weights))
    return float(np.max(np.abs(weights - theirs)))


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """Mean and standard error of the measure of each part, and the worst checks."""
    by = ("part", "method", "samples")
    table = stats.over_seeds(rows, by, ("spread",))
    for row in table:
        group = stats.alike(rows, row, by)
        row["meaning"] = _MEANINGS[row["part"]]
        row["nonzeros"] = float(np.mean([r["nonzeros"] for r in group]))
        for check in ("from_sklearn", "kkt"):
            row[check] = stats.largest(group, check)
    return table


def verdict(config: Config, rows: list[Row]) -> str:
    """The movement of the weights, and the stability of the selections."""
    spread = {
        (row["part"], row["method"], row["samples"]): row["spread"]
        for row in summarise(config, rows)
    }
    few, many = min(config.sizes), max(config.sizes)
    l1, net, l2 = (spread[DROP, method, config.samples] for method in METHODS)
    jumps = {m: (spread[REPLACE, m, few], spread[REPLACE, m, many]) for m in METHODS}
    gaps = {m: spread[TWINS, m, 442] for m in METHODS}
    chosen = {
        part: tuple(spread[part, m, samples] for m in METHODS[:2])
        for part, samples in ((DIABETES, 442), (CANCER, 569))
    }
    core = l1 > 5 * l2 and gaps["elastic net"] < 1e-6 < gaps["L1"]
    core &= jumps["L1"][1] > 10 * jumps["L2"][1]
    all_net = all(of_net > of_l1 for of_l1, of_net in chosen.values())
    word = "holds" if core and all_net else "holds with conditions" if core else "false"
    moved = ", ".join(f"{m} {a:.2g} to {b:.2g}" for m, (a, b) in jumps.items())
    alike = "; ".join(f"{p} {a:.2f} against {b:.2f}" for p, (a, b) in chosen.items())
    return (
        f"{word}: with {config.dropped} of {config.samples} samples left out a weight "
        f"moves by {l1:.2g} with L1, {net:.2g} with the elastic net and {l2:.2g} with "
        f"L2 ({l1 / l2:.0f} times less than L1). One sample of {few} to {many} "
        f"replaced: {moved}. Equal columns differ by up to {gaps['L1']:.2g} with L1, "
        f"{gaps['elastic net']:.0e} with the elastic net. Stability of the chosen "
        f"features, L1 against elastic net: {alike}."
    )


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """The measure of each part: a point per seed, the mean as a bar or a line."""
    figure = matplotlib.figure.Figure(figsize=(12, 6.6), layout="constrained")
    panels = figure.subplots(2, 3).flat
    for axes, part in zip(panels, _MEANINGS, strict=False):
        mine = stats.select(rows, part=part)
        for index, method in enumerate(METHODS):
            points = stats.select(mine, method=method)
            mean = stats.over_seeds(points, ("samples",), ("spread",))
            colour, is_line = f"C{index}", part == REPLACE
            at = "samples" if is_line else None
            for group, marks in (
                (points, "."),
                (mean, _STYLES[method] if is_line else "_"),
            ):
                xs = [row[at] if at else index for row in group]
                ys = [max(row["spread"], 1e-16) for row in group]
                size = 5 if group is points or is_line else 24
                axes.plot(xs, ys, marks, color=colour, markersize=size)
        axes.set_title(part, fontsize=10)
        axes.set_ylabel(_MEANINGS[part], fontsize=9)
        if part.startswith("bootstrap"):
            axes.set_ylim(0, 1)
        else:
            axes.set_yscale("log")
        if part == REPLACE:
            axes.set_xscale("log")
            axes.set_xlabel("samples")
            axes.set_xticks(config.sizes, [str(size) for size in config.sizes])
            axes.minorticks_off()
        else:
            axes.set_xticks(range(len(METHODS)), METHODS)
            axes.set_xlim(-0.5, len(METHODS) - 0.5)
    key = figure.axes[-1]
    key.axis("off")
    for method, style in _STYLES.items():
        key.plot([], [], style, label=method)
    key.legend(title="points: seeds; bars, lines: means", loc="center", fontsize=10)
    return figure
