"""Is L2 in the loss the same as weight decay?

Question: L2 in the loss, decay beside the step (SGDW, AdamW) and decay in prox form:
where does each end under SGD, SGD with momentum and Adam, on a least squares problem
whose features have the scales 0.1, 1 and 10? And on a digits MLP, which decay is best
for each, and at which accuracy?

Claim: L2 regularization is weight decay.

Expected: under plain SGD all three end at the ridge solution. Under momentum 0.9 decay
ends at the ridge of a tenth of its strength. Under Adam L2 in the loss still ends at
the ridge, to rounding; AdamW and the prox form end at least squares in the box
|w| <= 1 / decay: of features that are orthogonal, OLS clipped at 1 / decay.

Cost: about 20 seconds on 2 cores.

Command: python -m experiments decay
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.axes
import matplotlib.figure
import numpy as np
import optax
from scipy import optimize
from sklearn import linear_model

import jaxreg
from experiments.harness.contract import Row
from experiments.kit import data_sets, networks, plotting, stats, training
from experiments.kit.transformations import TRANSFORMATIONS, InnerMaker, Rate, Settings

DEFAULT = True

LOSS, BESIDE, PROX, EXACT = "L2 in the loss", "decay", "prox form", "regularize L2"
WAYS = (LOSS, BESIDE, PROX, EXACT)
_TRANSFORMATION_OF = {LOSS: "add_penalty_gradient", PROX: "shrink", EXACT: "regularize"}
MOMENTUM = 0.9

OPTIMIZERS: dict[str, InnerMaker] = {
    "sgd": optax.sgd,
    "sgd, momentum": lambda rate: optax.sgd(rate, momentum=MOMENTUM),
    "adam": optax.adam,
}

DESIGNS = ("orthogonal", "correlated")
MLP = "digits MLP"
_SIZES = (64, 32, 10)
_SCALES = (0.1, 1.0, 10.0)


@dataclasses.dataclass(frozen=True)
class Config:
    """The decay of the quadratic and its steps; the recipe and decays of the MLP."""

    seeds: int = 5
    samples: int = 100
    decay: float = 0.6
    steps: int = 200_000
    adam_peak: float = 0.03
    decays: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
    mlp_steps: int = 1500
    batch: int = 32
    mlp_sgd_peak: float = 0.3
    mlp_adam_peak: float = 1e-2


QUICK = Config(seeds=1, decays=(1e-2,), mlp_steps=60)

MLP_OPTIMIZERS = ("sgd", "adam")


def cells(config: Config) -> list[Row]:
    """The quadratic of either design, then the MLP at each decay."""
    seeds = range(config.seeds)
    quadratic = [
        {"problem": design, "optimizer": optimizer, "way": way, "decay": config.decay}
        for design in DESIGNS
        for optimizer in OPTIMIZERS
        for way in WAYS
    ]
    mlp = [
        {"problem": MLP, "optimizer": optimizer, "way": way, "decay": decay}
        for optimizer in MLP_OPTIMIZERS
        for way in WAYS[:3]
        for decay in config.decays
    ]
    return [{**cell, "seed": seed} for cell in quadratic + mlp for seed in seeds]


def measure(
    config: Config, problem: str, optimizer: str, way: str, decay: float, seed: int
) -> Row:
    """Trains to the end; on the quadratic compares with the known fixed points."""
    if problem == MLP:
        row = _train_mlp(config, optimizer, way, decay, seed, data_sets.digits(seed))
        return jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), row)
    design, answers = _least_squares(config, problem, seed)
    with jax.enable_x64(True):
        data = jnp.asarray(design), jnp.asarray(answers)
        answer = np.asarray(_solve(config, optimizer, way, decay, *data))
    points = _fixed_points(design, answers, decay)
    errors = {name: float(np.max(np.abs(answer - w))) for name, w in points.items()}
    aim = _aim(optimizer, way)
    return {
        "answer": answer.tolist(),
        "ols": points["OLS"].tolist(),
        "nearest": min(errors, key=lambda name: errors[name]),
        "aim": aim,
        "error": errors[aim],
        "from_ridge": errors["ridge"],
        "from_clipped": errors["OLS clipped"],
    }


def _least_squares(
    config: Config, design: str, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Features of three scales; coefficients on both sides of the box."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(config.samples, 3))
    if design == "orthogonal":
        inputs = np.linalg.qr(inputs)[0] * config.samples**0.5
    else:
        inputs[:, 1:] += 0.7 * inputs[:, :1]
    inputs = inputs * np.array(_SCALES)
    truth = rng.choice([-1.0, 1.0], 3) * np.array([3.0, 0.8, 2.5])
    answers = inputs @ truth + 0.1 * rng.normal(size=config.samples)
    return inputs, answers


def _fixed_points(
    design: np.ndarray, answers: np.ndarray, decay: float
) -> dict[str, np.ndarray]:
    """The points where the ways may end, from scikit-learn and SciPy."""

    def ridge(decay: float) -> np.ndarray:
        alpha = decay * len(answers)
        model = linear_model.Ridge(alpha=alpha, fit_intercept=False, solver="cholesky")
        return model.fit(design, answers).coef_

    ols = np.linalg.lstsq(design, answers)[0]
    bounds = (-1 / decay, 1 / decay)
    box = optimize.lsq_linear(design, answers, bounds, method="bvls", tol=1e-15)
    return {
        "ridge": ridge(decay),
        "ridge of a tenth": ridge((1 - MOMENTUM) * decay),
        "box": box.x,
        "OLS": ols,
        "OLS clipped": np.clip(ols, *bounds),
    }


def _aim(optimizer: str, way: str) -> str:
    """The name of the fixed point that theory gives."""
    if way in (LOSS, EXACT) or optimizer == "sgd":
        return "ridge"
    return "box" if optimizer == "adam" else "ridge of a tenth"


def _with_decay(
    optimizer: str, way: str, decay: Any, rate: Rate, width: float
) -> optax.GradientTransformation:
    """The optimizer with a way to decay; `weight_decay` is twice jaxreg's strength."""
    inner, penalty = OPTIMIZERS[optimizer], jaxreg.L2(decay / 2)
    settings = Settings(rate=rate, inner=inner, width=width)
    if way in _TRANSFORMATION_OF:
        row = TRANSFORMATIONS[_TRANSFORMATION_OF[way]]
        return row.optimizer(penalty, settings)
    if optimizer == "adam":
        return optax.adamw(rate, weight_decay=decay)
    momentum = MOMENTUM if "momentum" in optimizer else 0.0
    return optax.chain(
        optax.trace(momentum),
        jaxreg.add_penalty_gradient(penalty),
        optax.scale_by_learning_rate(rate),
    )


@functools.partial(jax.jit, static_argnames=("config", "optimizer", "way"))
def _solve(
    config: Config, optimizer: str, way: str, decay: Any, design: Any, answers: Any
) -> jax.Array:
    gram, target = (design.T @ part / len(answers) for part in (design, answers))
    curvature = jnp.linalg.eigvalsh(gram)[-1] + decay
    peak = config.adam_peak if optimizer == "adam" else 0.5 / curvature
    rate = optax.cosine_decay_schedule(peak, config.steps)
    tx = _with_decay(optimizer, way, decay, rate, width=0.5)

    start = jnp.zeros_like(target)
    return training.descend(tx, lambda w: gram @ w - target, start, config.steps)


@functools.partial(jax.jit, static_argnames=("config", "optimizer", "way"))
def _train_mlp(
    config: Config,
    optimizer: str,
    way: str,
    decay: Any,
    seed: Any,
    split: data_sets.Split,
) -> Row:
    init_key, batch_key = jax.random.split(jax.random.key(seed))
    params, apply = networks.init_mlp(_SIZES, init_key)
    peak = config.mlp_adam_peak if optimizer == "adam" else config.mlp_sgd_peak
    rate = training.warmup_cosine(peak, config.mlp_steps, config.mlp_steps // 20)
    tx = _with_decay(optimizer, way, decay, rate, width=0.05)
    loss = training.cross_entropy(apply)
    params = training.fit(
        loss,
        tx,
        params,
        split[:2],
        training.Length(config.mlp_steps, config.batch),
        batch_key,
    )
    return {
        "test_accuracy": training.accuracy(apply, params, *split[2:]),
        "train_loss": loss(params, *split[:2]),
        "norm": optax.tree.norm(params),
    }


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """The worst distances on the quadratics; means over seeds of the MLP."""
    by = ("problem", "optimizer", "way", "decay")
    quadratic = [row for row in rows if row["problem"] != MLP]
    table = stats.over_seeds(quadratic, by, ("from_ridge", "from_clipped"))
    for line in table:
        runs = stats.alike(quadratic, line, by)
        line["fixed_point"] = runs[0]["aim"]
        line["worst_error"] = max(row["error"] for row in runs)
    mlp = stats.select(rows, problem=MLP)
    return table + stats.over_seeds(mlp, by, ("test_accuracy", "train_loss", "norm"))


def best_of(table: list[Row], optimizer: str, way: str) -> Row:
    """The decay of the MLP with the best mean test accuracy."""
    mine = stats.select(table, problem=MLP, optimizer=optimizer, way=way)
    return max(mine, key=lambda row: row["test_accuracy"])


def apart(rows: list[Row], optimizer: str) -> float:
    """The largest relative difference of the MLP's norm between loss and decay."""
    runs = stats.select(rows, problem=MLP, optimizer=optimizer)
    norms = {(r["way"], r["decay"], r["seed"]): r["norm"] for r in runs}
    return max(
        abs(norms[LOSS, decay, seed] - norm) / max(norms[LOSS, decay, seed], norm)
        for (way, decay, seed), norm in norms.items()
        if way == BESIDE
    )


def verdict(config: Config, rows: list[Row]) -> str:
    """The fixed points that are reached, and the differences on the MLP."""
    table = summarise(config, rows)
    quadratic = [row for row in table if row["problem"] != MLP]
    # Adam's eps of 1e-8 counts over the least curvature of 0.01.
    as_told = [row for row in quadratic if row["worst_error"] < 1e-5]
    ridges = [row for row in quadratic if row["fixed_point"].startswith("ridge")]
    adam = stats.select(quadratic, optimizer="adam", way=BESIDE)
    same = apart(rows, "sgd") < 1e-3 and len(as_told) == len(quadratic)
    word = "holds with conditions" if same else "false"
    best = "; ".join(
        f"{way} {100 * row['test_accuracy']:.2f} % at {row['decay']:g}"
        for way in WAYS[:3]
        for row in [best_of(table, "adam", way)]
    )
    return (
        f"{word}: {len(as_told)} of {len(quadratic)} end at the fixed point of theory "
        f"(ridges to {max(row['worst_error'] for row in ridges):.0e}). Under plain "
        "sgd all ways are the ridge; decay after momentum is the ridge of a tenth of "
        f"it; AdamW is {min(row['from_ridge'] for row in adam):.2g} away from the "
        "ridge or more, at least squares in the box of 1 / decay. Of the digits MLP "
        f"the norms under sgd differ by {apart(rows, 'sgd'):.1g}, under Adam by up to "
        f"{apart(rows, 'adam'):.0%}; best of each under Adam: {best}."
    )


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """Answers against OLS on the orthogonal design; accuracy of the MLP by decay."""
    figure = matplotlib.figure.Figure(figsize=(12, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    for index, way in enumerate(WAYS[:3]):
        chosen = stats.select(rows, problem=DESIGNS[0], way=way)
        for optimizer, filled in (("sgd", "none"), ("adam", f"C{index}")):
            mine = stats.select(chosen, optimizer=optimizer)
            left.plot(
                np.abs([row["ols"] for row in mine]).ravel(),
                np.abs([row["answer"] for row in mine]).ravel(),
                "osD"[index],
                markersize=9 - 2 * index,
                markerfacecolor=filled,
                color=f"C{index}",
                label=f"{optimizer}, {way}",
                alpha=0.8,
            )
    line = np.linspace(0, 3.3, 50)
    left.plot(line, np.minimum(line, 1 / config.decay), "--", color="grey", lw=0.9)
    left.set_xlabel("|OLS coefficient| (scales 1: 0.8, 10: 2.5, 0.1: 3)")
    left.set_ylabel("|answer|")
    left.set_title("dashed: OLS clipped at 1 / decay", fontsize=9)
    left.legend(fontsize=7)
    for axes, optimizer in ((middle, "sgd"), (right, "adam")):
        _plot_accuracy(axes, rows, optimizer)
    return figure


def _plot_accuracy(axes: matplotlib.axes.Axes, rows: list[Row], optimizer: str) -> None:
    for index, way in enumerate(WAYS[:3]):
        mine = stats.select(rows, problem=MLP, optimizer=optimizer, way=way)
        plotting.means_and_seeds(
            axes,
            [{**row, "decay": row["decay"] * 1.25 ** (index - 1)} for row in mine],
            "decay",
            "test_accuracy",
            style="osD"[index] + "-",
            color=f"C{index}",
            label=way,
            percent=True,
        )
    axes.set_xscale("log")
    axes.set_xlabel("decay (points moved apart sideways)")
    axes.set_ylabel("test accuracy of the digits MLP, %")
    axes.set_title(
        f"{optimizer}: a point per seed, lines through the means", fontsize=9
    )
    axes.legend(fontsize=8, loc="lower left")
