"""Is it the L1 penalty that is robust against outliers, or the L1 loss?

Question: A tenth of the answers get a gross error. How far from the truth are a
squared, Huber's and an absolute loss, with and without a penalty on the weights? In a
linear model with 20 features, 5 of them relevant, and in a Flax MLP 10-32-1 on
scikit-learn's diabetes data, whose training answers are spoilt.

Claim: L1 regularization is robust to outliers, L2 regularization is not.

Expected: False of the penalty. At errors of size 65, with noise of size 1, the squared
loss is off by about 45 without a penalty, 20 with L2 and L1 (squared distance to the
true weights, which have 45), the absolute loss by about 0.2. On clean answers all are
off by 0.06 to 0.16. In the network a strong penalty of either kind undoes much of the
harm, and the absolute loss with L1 more of it.

Rule: in each problem, at its judged size (65 in the linear one, the largest in the
network's), L1 is more robust than L2 if its error under the squared loss is at most 0.8
of that of L2. Holds if it is in both problems, with conditions if in one, else false.

Cost: about 1 minute on 2 cores.

Command: python -m experiments outliers
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax

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

DEFAULT = True

METHODS = {
    "squared": ("squared", "none"),
    "squared + L2": ("squared", "L2"),
    "squared + L1": ("squared", "L1"),
    "Huber": ("huber", "none"),
    "absolute": ("absolute", "none"),
    "absolute + L1": ("absolute", "L1"),
}
LINEAR, NETWORK = "linear", "diabetes, MLP"
_STYLES = dict(zip(METHODS, ("o-", "s-", "D-", "^--", "v--", "P--"), strict=True))


@dataclasses.dataclass(frozen=True)
class Config:
    """The linear problem, the network's recipe, and the sizes of the errors.

    An error is `size` times a standard normal number, in units of the noise in the
    linear problem and of the answers' standard deviation in the network's. Strengths
    are chosen on clean validation samples.
    """

    seeds: int = 5
    samples: int = 200
    features: int = 20
    relevant: int = 5
    weight: float = 3.0
    share: float = 0.1
    sizes: tuple[float, ...] = (0.0, 5.0, 20.0, 65.0, 200.0, 1000.0)
    strengths: int = 16
    network_sizes: tuple[float, ...] = (0.0, 10.0)
    network_strengths: tuple[float, ...] = (1e-3, 1e-2, 3e-2, 0.1, 0.3)
    steps: int = 1000
    batch: int = 64
    peak: float = 1e-2
    warmup: int = 50
    width: float = 0.05


QUICK = Config(seeds=2, sizes=(0.0, 65.0), network_strengths=(0.1,), steps=300)

# Least and largest strength of the linear models, by loss and penalty: from those that
# help on clean answers to those that leave hardly a weight at the largest errors.
_RANGES = {
    ("squared", "L2"): (1e-4, 1e4),
    ("squared", "L1"): (1e-2, 1e2),
    ("absolute", "L1"): (3e-3, 3e-1),
}


def cells(config: Config) -> list[Row]:
    """One cell per problem, method, size of the errors and seed."""
    plans = [(LINEAR, config.sizes), (NETWORK, config.network_sizes)]
    return [
        {"problem": problem, "method": method, "size": size, "seed": seed}
        for problem, sizes in plans
        for method in METHODS
        for size in sizes
        for seed in range(config.seeds)
    ]


def measure(config: Config, problem: str, method: str, size: float, seed: int) -> Row:
    """The error of one fit, with the strength that the validation samples choose."""
    if problem == NETWORK:
        return _network(config, method, size, seed)
    with jax.enable_x64(True):
        return _linear_model(config, method, size, seed)


def _linear_model(config: Config, method: str, size: float, seed: int) -> Row:
    rng = np.random.default_rng(seed)
    shape = (config.samples, config.features)
    truth = np.zeros(config.features)
    truth[: config.relevant] = config.weight * rng.choice([-1, 1], config.relevant)
    (design, answers), (others, clean) = (
        (x, x @ truth + rng.normal(size=len(x)))
        for x in (rng.normal(size=shape), rng.normal(size=shape))
    )
    answers = _spoilt(config, answers, size, rng)
    loss = _loss(method, design, answers)
    strengths = _RANGES.get(METHODS[method], (0.0, 0.0))
    penalties = linear_models.penalties(
        METHODS[method][1], *strengths, config.strengths
    )
    train, valid = (design, answers), (others, clean)
    fit, penalty = linear_models.best_of_path(loss, penalties, train, valid)
    # Independent features of variance 1: the test error beside the noise, without one.
    return {
        "error": float(np.sum((fit.weights - truth) ** 2)),
        "strength": float(penalty.strength),
        **linear_models.checked(loss, penalty, *train, fit),
    }


def _spoilt(
    config: Config, answers: np.ndarray, size: float, rng: np.random.Generator
) -> np.ndarray:
    chosen = rng.permutation(len(answers))[: round(config.share * len(answers))]
    errors = np.zeros(len(answers))
    errors[chosen] = size * rng.normal(size=len(chosen))
    return answers + errors


def _loss(method: str, design: np.ndarray, answers: np.ndarray) -> jaxreg.Penalty:
    """The loss of a method; Huber's knot comes from residuals of the absolute loss."""
    samples = len(design)
    match METHODS[method][0]:
        case "squared":
            return linear_models.squared(samples)
        case "absolute":
            return linear_models.absolute(samples)
    with jax.enable_x64(True):
        rough = linear_models.fit(
            linear_models.absolute(samples), linear_models.NONE, design, answers
        )
    residuals = np.abs(answers - design @ np.asarray(rough.weights))
    # The usual constants: the median of |N(0, 1)|, and 95 % efficiency.
    return linear_models.huber(samples, 1.345 * float(np.median(residuals)) / 0.6745)


def _network(config: Config, method: str, size: float, seed: int) -> Row:
    train, valid, test = data_sets.diabetes(seed)
    answers = _spoilt(config, train[1], size, np.random.default_rng(seed))
    loss = _loss(method, train[0], answers)
    grid = config.network_strengths if METHODS[method][1] != "none" else (0.0,)
    strengths = np.array(grid, np.float32)
    data = jax.tree.map(np.float32, ((train[0], answers), valid, test))
    chosen_by, errors = _trained(config, method, loss, strengths, seed, data)
    best = int(np.argmin(chosen_by))
    return {
        "error": float(errors[best]),
        "strength": float(strengths[best]),
        "from_sklearn": None,
        "kkt": None,
    }


@functools.partial(jax.jit, static_argnames=("config", "method"))
def _trained(
    config: Config, method: str, loss: Any, strengths: Any, seed: Any, data: Any
) -> tuple[jax.Array, jax.Array]:
    """Validation and test error of a network per strength."""
    init_key, batch_key = jax.random.split(jax.random.key(seed))
    spoilt, valid, test = data
    params, apply = networks.init_mlp((spoilt[0].shape[1], 32, 1), init_key)
    samples = len(spoilt[0])
    kind = jaxreg.L2 if METHODS[method][1] == "L2" else jaxreg.L1
    rate = training.warmup_cosine(config.peak, config.steps, config.warmup)

    def on_batch(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return loss.value(apply(params, x)[:, 0] - y) * samples / config.batch

    def error(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.mean((apply(params, x)[:, 0] - y) ** 2)

    def train(strength: jax.Array) -> tuple[jax.Array, jax.Array]:
        penalty = jaxreg.on_kernels(kind(strength))
        fitted = training.fit(
            on_batch,
            jaxreg.regularize(optax.adam(rate), penalty, config.width),
            params,
            spoilt,
            config,
            batch_key,
        )
        return error(fitted, *valid), error(fitted, *test)

    return jax.vmap(train)(strengths)


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """Mean and standard error of the error, and the worst of the checks."""
    by = ("problem", "method", "size")
    table = stats.over_seeds(rows, by, ("error",))
    for row in table:
        mine = stats.alike(rows, row, by)
        for check in ("from_sklearn", "kkt"):
            row[check] = stats.largest(mine, check)
    return table


def verdict(config: Config, rows: list[Row]) -> str:
    """The errors on clean and on spoilt answers, by loss and penalty."""
    table = summarise(config, rows)
    texts, robust, decided = [], 0, 0
    for problem, size in ((LINEAR, 65.0), (NETWORK, max(config.network_sizes))):
        mine = stats.select(table, problem=problem)
        clean, spoilt = (
            {row["method"]: row["error"] for row in mine if row["size"] == at}
            for at in (0.0, size)
        )
        robust += spoilt["squared + L1"] <= 0.8 * spoilt["squared + L2"]
        decided += spoilt["absolute + L1"] < 0.9 * spoilt["squared + L1"]
        shown = (f"{m} {clean[m]:.2g} to {spoilt[m]:.2g}" for m in METHODS)
        texts.append(f"{problem}, size {size:g}: {', '.join(shown)}")
    word = ("false", "holds with conditions", "holds")[robust]
    return (
        f"{word}: L1 is more robust than L2 in {robust} of 2 problems; an absolute "
        f"loss beats a squared one, both with L1, in {decided} of 2. Errors, clean and "
        f"spoilt: {'; '.join(texts)}."
    )


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """The errors of the linear model by size of the outliers, and of the network."""
    figure = matplotlib.figure.Figure(figsize=(11, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.2, 1))
    for index, (method, style) in enumerate(_STYLES.items()):
        plotting.means_and_seeds(
            left,
            stats.select(rows, problem=LINEAR, method=method),
            "size",
            "error",
            style=style,
            color=f"C{index}",
            label=method,
        )
    for shift, size in enumerate(config.network_sizes):
        plotting.seeds_and_means(
            right,
            list(METHODS),
            [
                (row["method"], row["error"])
                for row in stats.select(rows, problem=NETWORK, size=size)
            ],
            label=f"errors of size {size:g}",
            color=f"C{7 if shift == 0 else 3}",
            shift=0.2 - 0.4 * shift,
        )
    left.set_xscale("symlog", linthresh=5)
    left.set_yscale("log")
    left.set_xticks(config.sizes, [f"{size:g}" for size in config.sizes])
    left.minorticks_off()
    left.set_xlabel(f"size of the errors in {config.share:.0%} of the answers")
    left.set_ylabel("squared distance to the true weights")
    left.set_title("linear model: mean and each seed", fontsize=10)
    left.legend(fontsize=8)
    plotting.name_lines(right, list(METHODS))
    right.set_xscale("log")
    right.set_xticks((0.5, 1, 2, 5, 10), ("0.5", "1", "2", "5", "10"))
    right.minorticks_off()
    right.legend(fontsize=8)
    right.set_xlabel("test error / variance of the answers")
    right.set_title("network on diabetes: each seed, and the mean (bar)", fontsize=10)
    return figure
