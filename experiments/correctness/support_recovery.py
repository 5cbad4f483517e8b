"""Does stochastic training find the support of a lasso, and keep it?

Question: A lasso with 200 features, 10 of them relevant, is trained on batches of 32.
How many entries are non-zero in the end, and how many become zero or cease to be at
each step? At a constant learning rate and with a cosine to 0.

Claim: L1 with a prox gives exact zeros.

Expected: `regularize` ends with the 10 features and no flips. prox-SGD has the zeros of
its last batch: ten times as many entries, a different set at each step. Averaged
gradients and Adam's metric do better; the threshold at the learning rate after Adam
solves another problem. `dual_average` and `ftrl` hold the support at a constant rate;
a rate that decays to 0 takes `dual_average` back towards its start.

Cost: about 1 minute on 2 cores.

Command: python -m experiments support_recovery
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax
from sklearn import linear_model

import jaxreg
from experiments.harness.contract import Row
from experiments.kit import plotting, stats
from experiments.kit.transformations import TRANSFORMATIONS, Rate, Settings


@dataclasses.dataclass(frozen=True)
class Config:
    """Gaussian features, coefficients of +-1, noise on the targets, batches of 32."""

    rows: int = 2000
    features: int = 200
    support: int = 10
    noise: float = 0.5
    strength: float = 0.1
    batch: int = 32
    steps: int = 6000
    sgd_rate: float = 0.01
    adam_rate: float = 0.003
    lion_rate: float = 0.001
    dual_rate: float = 0.01
    ftrl_rate: float = 0.03
    width: float = 0.3
    seeds: int = 5


QUICK = Config(rows=200, features=20, support=3, steps=300, seeds=1)


def _lion(rate: Rate) -> optax.GradientTransformation:
    return optax.lion(rate, weight_decay=0.0)


# The field of the learning rate, a row of the table of transformations, its settings.
_METHODS: dict[str, tuple[str, str, Settings]] = {
    "prox_sgd": ("sgd_rate", "prox_sgd", Settings()),
    "prox_sgd, averaged gradients": (
        "sgd_rate",
        "proximal",
        Settings(
            inner=lambda rate: optax.ema(0.99),
            preconditioner=jaxreg.preconditioners.identity(),
        ),
    ),
    "prox_adam": ("adam_rate", "prox_adam", Settings()),
    "adam, then shrink": ("adam_rate", "shrink", Settings()),
    "regularize(sgd)": ("sgd_rate", "regularize", Settings(inner=optax.sgd)),
    "regularize(adam)": ("adam_rate", "regularize", Settings()),
    "regularize(lion)": ("lion_rate", "regularize", Settings(inner=_lion)),
    "dual_average": ("dual_rate", "dual_average", Settings()),
    "ftrl": ("ftrl_rate", "ftrl", Settings()),
}
RATES = ("constant", "cosine to 0")


def cells(config: Config) -> list[Row]:
    """One cell per method, learning rate schedule and seed; `ftrl` takes none."""
    return [
        {"method": method, "rate": rate, "seed": seed}
        for method in _METHODS
        for rate in (RATES[:1] if method == "ftrl" else RATES)
        for seed in range(config.seeds)
    ]


def measure(config: Config, method: str, rate: str, seed: int) -> Row:
    """Trains from zero on random batches; scikit-learn solves the same lasso."""
    rng = np.random.default_rng(seed)
    design = rng.normal(size=(config.rows, config.features))
    truth = np.zeros(config.features)
    truth[: config.support] = rng.choice([-1.0, 1.0], config.support)
    answers = design @ truth + config.noise * rng.normal(size=config.rows)
    w, flips = _train(config, method, rate, design, answers, jax.random.key(seed))
    w = np.asarray(w, np.float64)
    lasso = linear_model.Lasso(alpha=config.strength, fit_intercept=False, tol=1e-12)
    best = lasso.fit(design, answers).coef_

    def objective(w: np.ndarray) -> float:
        loss = 0.5 * np.mean((answers - design @ w) ** 2)
        return float(loss + config.strength * np.abs(w).sum())

    return {
        "nonzeros": int(np.sum(w != 0)),
        "flips": float(flips),
        "gap": objective(w) - objective(best),
        "lasso_nonzeros": int(np.sum(best != 0)),
    }


@functools.partial(jax.jit, static_argnames=("config", "method", "rate"))
def _train(
    config: Config, method: str, rate: str, design: Any, answers: Any, key: Any
) -> tuple[jax.Array, jax.Array]:
    """The last parameters, and the flips per step over the last sixth of the run."""
    field, name, settings = _METHODS[method]
    peak = getattr(config, field)
    is_constant = rate == "constant"
    rates = peak if is_constant else optax.cosine_decay_schedule(peak, config.steps)
    penalty = jaxreg.L1(config.strength)
    settings = dataclasses.replace(settings, rate=rates, width=config.width)
    tx = TRANSFORMATIONS[name].optimizer(penalty, settings)

    def step(carry: tuple[Any, Any], key: jax.Array) -> tuple[Any, jax.Array]:
        w, state = carry
        rows = jax.random.randint(key, (config.batch,), 0, config.rows)
        inputs, targets = design[rows], answers[rows]
        grads = inputs.T @ (inputs @ w - targets) / config.batch
        updates, state = tx.update(grads, state, w)
        new = optax.apply_updates(w, updates)
        flips = jaxreg.measure(penalty, new, previous=w)["flips"]
        return (new, state), flips

    start = jnp.zeros(config.features)
    keys = jax.random.split(key, config.steps)
    (w, _), flips = jax.lax.scan(step, (start, tx.init(start)), keys)
    return w, jnp.mean(flips[-(config.steps // 6) :])


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """Means over seeds."""
    return stats.over_seeds(
        rows, ("method", "rate"), ("nonzeros", "flips", "gap", "lasso_nonzeros")
    )


def verdict(config: Config, rows: list[Row]) -> str:
    """The support under `regularize` and under prox-SGD."""
    ours = [row for row in rows if row["method"].startswith("regularize")]
    counts = sorted({row["nonzeros"] for row in ours})
    flips = max(row["flips"] for row in ours)
    others = stats.select(summarise(config, rows), method="prox_sgd")
    wide = min(row["nonzeros"] for row in others)
    word = "holds with conditions" if flips < 0.05 else "false"
    return (
        f"{word}: regularize ends with {' or '.join(map(str, counts))} non-zeros (the "
        f"lasso has {rows[0]['lasso_nonzeros']}) and at most {flips:.2g} flips a step; "
        f"prox_sgd with at least {wide:.0f} on average."
    )


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """Non-zeros and flips of each method; a point per seed."""
    figure = matplotlib.figure.Figure(figsize=(9, 4), layout="constrained")
    for axes, column in zip(
        figure.subplots(1, 2, sharey=True), ("nonzeros", "flips"), strict=True
    ):
        for shift, rate in enumerate(RATES):
            mine = stats.select(rows, rate=rate)
            points = [(row["method"], row[column]) for row in mine]
            plotting.strip(axes, list(_METHODS), points, label=rate, shift=0.2 * shift)
        axes.set_xscale("symlog", linthresh=0.01 if column == "flips" else 1)
        axes.set_xlabel(f"{column}" + (" per step" if column == "flips" else ""))
    plotting.name_lines(axes, list(_METHODS))
    axes.legend()
    return figure
