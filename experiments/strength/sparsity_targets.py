"""Does a wanted sparsity come out, and at what accuracy?

Question: `jaxreg.target_sparsity` is asked for 50 to 99 % zero weights, and for 50 and
80 % dead neurons. Does it reach them to the unit, and is the network as good as the
best that a fixed strength makes at the same sparsity? A Flax MLP 64-300-100-10 and a
small CNN (8 and 16 filters) learn scikit-learn's digits.

Claim: lambda needs tuning.

Expected: every target met to within one weight or neuron, in one run; test accuracy
within 1 point of the best fixed strength that has at least as many zeros, chosen on the
test set itself. A refit with `jaxreg.hold_support` is reported beside.

Rule: holds with conditions if every target is missed by at most one unit, has a fixed
strength with as many zeros, and is at most 1 point behind the best of these; false
otherwise.

Cost: about 5 minutes on 2 cores.

Command: python -m experiments sparsity_targets
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
import matplotlib.ticker
import optax

import jaxreg
from experiments.harness.contract import Row
from experiments.kit import data_sets, networks, stats, training

MODELS = ("MLP", "CNN")
FIXED, TARGET = "fixed strength", "target_sparsity"
_HIDDEN = {"MLP": r"layers/[01]/kernel$", "CNN": r"convs/[01]/kernel$"}
_NEURONS = {"MLP": 1, "CNN": 3}
# Lower accuracies (the CNN at 99 % zeros) would flatten the figure.
_LOWEST_ACCURACY = 90


@dataclasses.dataclass(frozen=True)
class Config:
    """Adam with warm-up and cosine; the landing after `landing` of the steps.

    The bases are the strengths that `target_sparsity` steers from. The refit has its
    own warm-up and cosine, to `refit_peak`.
    """

    weight_targets: tuple[float, ...] = (0.5, 0.7, 0.9, 0.95, 0.99)
    models: tuple[str, ...] = MODELS
    neuron_targets: tuple[float, ...] = (0.5, 0.8)
    weight_strengths: tuple[float, ...] = (
        1e-6,
        1e-5,
        3e-5,
        1e-4,
        3e-4,
        1e-3,
        3e-3,
        1e-2,
        3e-2,
    )
    neuron_strengths: tuple[float, ...] = (3e-5, 1e-4, 2e-4, 3e-4, 6e-4, 2e-3, 4e-3)
    seeds: int = 5
    steps: int = 3000
    landing: float = 0.7
    weight_base: float = 3e-6
    neuron_base: float = 1e-5
    batch: int = 32
    peak: float = 1e-2
    warmup: int = 100
    width: float = 0.05
    refit_steps: int = 1000
    refit_peak: float = 1e-3


QUICK = Config(
    models=("MLP",),
    weight_targets=(0.9,),
    neuron_targets=(),
    weight_strengths=(1e-4,),
    neuron_strengths=(),
    seeds=1,
    steps=400,
    weight_base=1e-4,
    refit_steps=200,
)


def cells(config: Config) -> list[Row]:
    """One cell per model, unit, way, setting (a strength or a target) and seed."""
    plans = [
        ("weights", FIXED, config.weight_strengths),
        ("weights", TARGET, config.weight_targets),
        ("neurons", FIXED, config.neuron_strengths),
        ("neurons", TARGET, config.neuron_targets),
    ]
    return [
        {"model": model, "units": units, "way": way, "setting": setting, "seed": seed}
        for model in config.models
        for units, way, settings in plans
        for setting in settings
        for seed in range(config.seeds)
    ]


def measure(
    config: Config, model: str, units: str, way: str, setting: float, seed: int
) -> Row:
    """Trains one network, counts its zero units, and refits what is left."""
    split = data_sets.digits(seed)
    numbers = _measure(config, model, units, way, setting, seed, split)
    row: Row = {name: float(number) for name, number in numbers.items()}
    wanted = round(setting * row["total"]) if way == TARGET else row["zero_units"]
    return {**row, "missed": row["zero_units"] - wanted}


@functools.partial(jax.jit, static_argnames=("config", "model", "units", "way"))
def _measure(
    config: Config,
    model: str,
    units: str,
    way: str,
    setting: jax.Array,
    seed: jax.Array,
    split: data_sets.Split,
) -> dict[str, jax.Array]:
    init_key, batch_key, refit_key = jax.random.split(jax.random.key(seed), 3)
    params, apply = (
        networks.init_mlp((64, 300, 100, 10), init_key)
        if model == "MLP"
        else networks.init_cnn(8, (8, 16), 10, init_key)
    )
    data, loss = split[:2], training.cross_entropy(apply)
    base = config.weight_base if units == "weights" else config.neuron_base
    strength = setting if way == FIXED else base
    penalty = _penalty(model, units, strength)
    tx = _optimizer(config, way, penalty, setting)
    params = training.fit(loss, tx, params, data, config, batch_key)
    length = training.Length(config.refit_steps, config.batch)
    refit = _refit(config, penalty)
    refitted = training.fit(loss, refit, params, data, length, refit_key)
    zero, total = _zero_units(units, penalty, params)
    return {
        "zero_units": zero,
        "total": jnp.asarray(total),
        "zero_share": zero / total,
        "test_accuracy": training.accuracy(apply, params, *split[2:]),
        "refit_accuracy": training.accuracy(apply, refitted, *split[2:]),
    }


def _penalty(model: str, units: str, strength: Any) -> jaxreg.Penalty:
    """L1 on all kernels, or group lasso on the hidden neurons and L1 on the rest."""
    if units == "weights":
        return jaxreg.on_kernels(jaxreg.L1(strength))
    neurons = jaxreg.GroupLasso(strength, group_axis=_NEURONS[model])
    return jaxreg.by_path(
        [(_HIDDEN[model], neurons), (r"kernel$", jaxreg.L1(strength))]
    )


def _zero_units(
    units: str, penalty: jaxreg.Penalty, params: Any
) -> tuple[jax.Array, int]:
    """The zero weights or dead neurons, and the number of all."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    kernels = [leaf for path, leaf in leaves if "kernel" in jax.tree_util.keystr(path)]
    if units == "weights":
        return jaxreg.measure(penalty, params)["zeros"], sum(k.size for k in kernels)
    # The last kernel leads to the classes.
    neurons = sum(kernel.shape[-1] for kernel in kernels[:-1])
    return jaxreg.measure(penalty, params)["dead_groups"], neurons


def _optimizer(
    config: Config, way: str, penalty: jaxreg.Penalty, target: Any
) -> optax.GradientTransformation:
    adam = optax.adam(training.warmup_cosine(config.peak, config.steps, config.warmup))
    if way == FIXED:
        return jaxreg.regularize(adam, penalty, config.width)
    end = round(config.landing * config.steps)
    return jaxreg.target_sparsity(adam, penalty, target, end, width=config.width)


def _refit(config: Config, penalty: jaxreg.Penalty) -> optax.GradientTransformation:
    rate = training.warmup_cosine(config.refit_peak, config.refit_steps, config.warmup)
    return optax.chain(optax.adam(rate), jaxreg.hold_support(penalty))


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """Means over seeds; for a target the worst miss, and the best fixed strength."""
    by = ("model", "units", "way", "setting")
    measured = ("zero_share", "test_accuracy", "refit_accuracy")
    table = stats.over_seeds(rows, by, measured)
    for row in table:
        mine = stats.alike(rows, row, by)
        row["missed"] = max((r["missed"] for r in mine), key=abs)
        rivals = [
            other["test_accuracy"]
            for other in stats.select(
                table, model=row["model"], units=row["units"], way=FIXED
            )
            if row["way"] == TARGET and other["zero_share"] >= row["zero_share"] - 1e-6
        ]
        row["best_fixed"] = max(rivals, default=None)
    return table


def verdict(config: Config, rows: list[Row]) -> str:
    """The worst miss, and the worst distance from the best fixed strength."""
    table = stats.select(summarise(config, rows), way=TARGET)
    missed = max(abs(row["missed"]) for row in table)
    rated = [row for row in table if row["best_fixed"] is not None]
    behind = max((row["best_fixed"] - row["test_accuracy"] for row in rated), default=0)
    holds = missed <= 1 and behind <= 0.01 and len(rated) == len(table)
    need = "need not" if holds else "may have to"
    return (
        f"{'holds with conditions' if holds else 'false'}: a strength {need} be "
        f"found by hand; {len(table)} targets are met to within {missed:.0f} units in "
        f"one run each, at most {100 * behind:.2f} points of test accuracy behind the "
        f"best fixed strength ({len(rated)} have one at that sparsity)."
    )


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """Accuracy against the share of units left, of both ways and after the refit."""
    size = (10, 1 + 3 * len(config.models))
    figure = matplotlib.figure.Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(config.models), 2, sharey="row", squeeze=False)
    for line, model in zip(grid, config.models, strict=True):
        for axes, units in zip(line, ("weights", "neurons"), strict=True):
            axes.set_visible(bool(stats.select(rows, model=model, units=units)))
            for way, marker in ((FIXED, "o"), (TARGET, "D")):
                mine = stats.select(rows, model=model, units=units, way=way)
                left = [1 - row["zero_share"] for row in mine]
                for column, filled in (("test_accuracy", 1.0), ("refit_accuracy", 0.3)):
                    label = way if column == "test_accuracy" else f"{way}, refitted"
                    shares = [100 * row[column] for row in mine]
                    axes.plot(left, shares, marker, ms=4, alpha=filled, label=label)
            axes.set_xscale("log")
            axes.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
            axes.set_ylim(_LOWEST_ACCURACY, 100)
            axes.set_title(f"{model}, {units}", fontsize=9)
            axes.set_xlabel(f"share of {units} that are not zero")
        line[0].set_ylabel(f"test accuracy, % (below {_LOWEST_ACCURACY} not shown)")
    grid[0, 0].legend(fontsize=8)
    return figure
