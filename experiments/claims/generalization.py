"""Which penalty generalises better?

Question: First, a linear model with fewer samples than features (150 and 200, noise of
size 1), in which 5 to all 200 features are relevant, the true weights of the same norm.
Second, a Flax MLP 64-100-10 on few of scikit-learn's digits, with right labels and with
30 % random ones. Strengths are chosen on validation samples that are like the training
samples; the test samples are used once.

Claim: L1 regularization improves generalization, and so does L2.

Expected: Holds with conditions: it depends on the truth. With 5 relevant features the
squared distance to the true weights is about 0.15 with L1 and 8 with L2, with all of
them 11 and 9. On digits no penalty gains anything with right labels, and each gains
with random ones, L2 the most.

Rule: on digits a penalty gains if its mean error is lower than without a penalty by
more than twice the standard error of the difference. False if none gains anywhere;
holds if all gain everywhere and the better of L1 and L2 in the linear model is the same
with the fewest and the most relevant features; with conditions otherwise.

Corrected: with random labels and 100 images only L2 gains clearly, with 300 all do.

Cost: 2 to 3 minutes on 2 cores.

Command: python -m experiments generalization
"""

import dataclasses
import functools
import statistics
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax
from matplotlib.axes import Axes

import jaxreg
from experiments.harness.contract import Row
from experiments.kit import (
    data_sets,
    linear_models,
    networks,
    plotting,
    stats,
    training,
)

LINEAR = "linear"
LINEAR_METHODS = ("L1", "elastic net", "L2")
METHODS = ("no penalty", "L2", "L1", "elastic net", "group lasso")
_STYLES = dict(zip(LINEAR_METHODS, ("o-", "s-", "D-"), strict=True))


@dataclasses.dataclass(frozen=True)
class Config:
    """The linear problem, and the networks' recipe: Adam, warm-up and cosine.

    `energy` is the squared norm of the true weights.
    """

    seeds: int = 5
    samples: int = 150
    features: int = 200
    relevant: tuple[int, ...] = (5, 50, 200)
    energy: float = 27.0
    grid: int = 12
    images: tuple[int, ...] = (100, 300)
    random: tuple[float, ...] = (0.0, 0.3)
    strengths: tuple[float, ...] = (1e-4, 1e-3, 3e-3, 1e-2, 3e-2)
    steps: int = 1000
    batch: int = 32
    peak: float = 1e-2
    warmup: int = 50
    width: float = 0.05


QUICK = Config(
    seeds=2, relevant=(5, 200), grid=6, images=(100,), strengths=(1e-2,), steps=200
)

# From what hardly acts to what leaves no weight.
_RANGES = {"L1": (1e-2, 1e1), "elastic net": (1e-2, 1e1), "L2": (1e-2, 1e2)}


def cells(config: Config) -> list[Row]:
    """One cell per problem, its amount (relevant features or images), method, seed."""
    digits = [
        (f"digits, {share:.0%} random labels", METHODS) for share in config.random
    ]
    plans = [(LINEAR, LINEAR_METHODS), *digits]
    return [
        {"problem": problem, "amount": amount, "method": method, "seed": seed}
        for problem, methods in plans
        for amount in (config.relevant if problem == LINEAR else config.images)
        for method in methods
        for seed in range(config.seeds)
    ]


def measure(config: Config, problem: str, amount: int, method: str, seed: int) -> Row:
    """The error of one fit, with the strength that the validation samples choose."""
    if problem == LINEAR:
        with jax.enable_x64(True):
            return _linear_model(config, amount, method, seed)
    (share,) = [share for share in config.random if f" {share:.0%} " in problem]
    return _digits(config, amount, method, seed, share)


def _linear_model(config: Config, relevant: int, method: str, seed: int) -> Row:
    rng = np.random.default_rng(seed)
    truth = np.zeros(config.features)
    truth[:relevant] = rng.normal(size=relevant)
    truth *= np.sqrt(config.energy) / np.linalg.norm(truth)
    shape = (2, config.samples, config.features)
    designs = rng.normal(size=shape)
    answers = designs @ truth + rng.normal(size=shape[:2])
    loss = linear_models.squared(config.samples)
    penalties = _penalty(method, jnp.geomspace(*_RANGES[method], config.grid))
    train, valid = zip(designs, answers, strict=True)
    fit, penalty = linear_models.best_of_path(loss, penalties, train, valid)
    # Independent features of variance 1: the test error beside the noise, without one.
    return {
        "error": float(np.sum((fit.weights - truth) ** 2)),
        "strength": float(penalty.l1 if method == "elastic net" else penalty.strength),
        "zeros": float(np.mean(fit.weights == 0)),
        **linear_models.checked(loss, penalty, *train, fit),
    }


def _penalty(method: str, strength: Any) -> Any:
    match method:
        case "L2":
            return jaxreg.L2(strength)
        case "elastic net":
            return jaxreg.ElasticNet(strength, strength / 2)
        case "group lasso":
            # Pixels, then neurons: what a row of a kernel reads from.
            return jaxreg.GroupLasso(strength, group_axis=0)
    return jaxreg.L1(strength)


def _digits(config: Config, images: int, method: str, seed: int, share: float) -> Row:
    split = data_sets.digits(seed)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(split.train_x))
    labels = split.train_y.copy()
    spoilt = rng.random(len(labels)) < share
    labels[spoilt] = rng.integers(10, size=spoilt.sum())
    train, valid = order[:images], order[images : images + 300]
    data = [(split.train_x[part], labels[part]) for part in (train, valid)]
    data.append((split.test_x, split.test_y))
    strengths = (0.0,) if method == "no penalty" else config.strengths
    scores = _trained(config, method, np.array(strengths, np.float32), seed, data)
    chosen_by, test, zeros = (np.asarray(part) for part in scores)
    # The largest of equally good strengths.
    best = int(np.flatnonzero(chosen_by == chosen_by.max())[-1])
    return {
        "error": float(1 - test[best]),
        "strength": float(strengths[best]),
        "zeros": float(zeros[best]),
        "from_sklearn": None,
        "kkt": None,
    }


@functools.partial(jax.jit, static_argnames=("config", "method"))
def _trained(
    config: Config, method: str, strengths: Any, seed: Any, data: Any
) -> tuple[jax.Array, ...]:
    """Validation and test accuracy, and the share of zeros, per strength."""
    init_key, batch_key = jax.random.split(jax.random.key(seed))
    params, apply = networks.init_mlp((64, 100, 10), init_key)
    train_data, valid, test = data
    rate = training.warmup_cosine(config.peak, config.steps, config.warmup)

    def train(strength: jax.Array) -> tuple[jax.Array, ...]:
        penalty = jaxreg.on_kernels(_penalty(method, strength))
        fitted = training.fit(
            training.cross_entropy(apply),
            jaxreg.regularize(optax.adam(rate), penalty, config.width),
            params,
            train_data,
            config,
            batch_key,
        )
        scores = (training.accuracy(apply, fitted, *part) for part in (valid, test))
        return *scores, jaxreg.measure(penalty, fitted)["zero_share"]

    return jax.vmap(train)(strengths)


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """Mean and standard error of the error, the zeros, and the worst checks."""
    by = ("problem", "amount", "method")
    table = stats.over_seeds(rows, by, ("error",))
    for row in table:
        group = stats.alike(rows, row, by)
        row["zeros"] = float(np.mean([r["zeros"] for r in group]))
        for check in ("from_sklearn", "kkt"):
            row[check] = stats.largest(group, check)
    return table


def verdict(config: Config, rows: list[Row]) -> str:
    """The best penalty for each truth, and the gains on digits."""
    table = summarise(config, rows)
    error = {(r["problem"], r["amount"], r["method"]): r["error"] for r in table}
    few, many = min(config.relevant), max(config.relevant)
    sparse, dense = (
        [error[LINEAR, amount, method] for method in ("L1", "L2")]
        for amount in (few, many)
    )
    texts, gains = [], []
    digits = dict.fromkeys(r["problem"] for r in table if r["problem"] != LINEAR)
    for problem, images in ((p, n) for p in digits for n in config.images):
        points = [100 * error[problem, images, method] for method in METHODS]
        mine = stats.select(rows, problem=problem, amount=images)
        gains += [_gains(mine, method) for method in METHODS[1:]]
        shown = ", ".join(f"{m} {x:.1f}" for m, x in zip(METHODS, points, strict=True))
        texts.append(f"{images} {problem}: {shown}")
    depends = (sparse[0] < sparse[1]) != (dense[0] < dense[1])
    word = "holds" if all(gains) and not depends else "holds with conditions"
    word = word if any(gains) else "false"
    return (
        f"{word}: with {few} relevant features the error is {sparse[0]:.2g} with L1, "
        f"{sparse[1]:.2g} with L2, with {many} {dense[0]:.3g} and {dense[1]:.3g}. On "
        f"digits {sum(gains)} of {len(gains)} penalties gain clearly; test error in %, "
        f"{'; '.join(texts)}."
    )


def _gains(rows: list[Row], method: str) -> bool:
    """True if the error falls by more than twice the standard error, seed by seed."""
    free = {row["seed"]: row["error"] for row in stats.select(rows, method=METHODS[0])}
    falls = [free[r["seed"]] - r["error"] for r in stats.select(rows, method=method)]
    return bool(statistics.fmean(falls) > 2 * stats.standard_error(falls))


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """The linear errors, and those on digits: seeds as points, means as lines, bars."""
    figure = matplotlib.figure.Figure(figsize=(12, 4.4), layout="constrained")
    left, *digits_axes = figure.subplots(1, 3, width_ratios=(1.1, 1, 1))
    for index, (method, style) in enumerate(_STYLES.items()):
        plotting.means_and_seeds(
            left,
            stats.select(rows, problem=LINEAR, method=method),
            "amount",
            "error",
            style=style,
            color=f"C{index}",
            label=method,
        )
    left.set_xscale("log")
    left.set_yscale("log")
    left.set_xticks(config.relevant, [str(count) for count in config.relevant])
    left.minorticks_off()
    left.set_xlabel(f"relevant features of {config.features}")
    left.set_ylabel("squared distance to the true weights")
    left.set_title(f"linear model, {config.samples} samples", fontsize=10)
    left.legend(fontsize=8)
    digits = dict.fromkeys(r["problem"] for r in rows if r["problem"] != LINEAR)
    for axes, problem in zip(digits_axes, digits, strict=False):
        _plot_digits(axes, config, stats.select(rows, problem=problem))
        axes.set_title(problem, fontsize=10)
    named = digits_axes[0].get_legend_handles_labels()
    figure.legend(*named, loc="outside lower right", ncols=2, fontsize=8)
    return figure


def _plot_digits(axes: Axes, config: Config, rows: list[Row]) -> None:
    for shift, images in enumerate(config.images):
        plotting.seeds_and_means(
            axes,
            METHODS,
            [
                (row["method"], 100 * row["error"])
                for row in stats.select(rows, amount=images)
            ],
            label=f"{images} images",
            color=f"C{3 + shift}",
            shift=0.15 - 0.3 * shift,
        )
    plotting.name_lines(axes, METHODS)
    axes.set_xlabel("test error, %")
