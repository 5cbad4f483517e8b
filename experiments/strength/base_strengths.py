"""Does the strength that is written decide what `target_sparsity` reaches?

Question: `jaxreg.target_sparsity` scales the penalty itself. Does it reach the wanted
number of zeros, at the same accuracy, whatever the strength it starts from? Four
problems: 90 % of the weights or 70 % of the neurons of an MLP and of a CNN on
scikit-learn's digits are to be zero, 50 of the 784 pixels of MNIST are to be left, and
20 of 500 columns, of which 20 are informative (`make_classification`); under L1 as many
weights as these inputs have. Penalties: L1, the group lasso and group MCP.

Claim: lambda needs tuning.

Expected: the number met to within one unit in every run, with every strength from 1e-5
to 1e-1; mean test accuracy within 1 point of the best of the strengths, for group MCP
within 1.5.

Rule: the claim is false if every run misses by at most one unit, and no strength is
behind the best by more than 1 point (group MCP: 1.5) in the mean; else it holds.

Cost: about 15 minutes on 2 cores; needs mnist/ in JAXREG_DATA.

Command: python -m experiments base_strengths
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax
from sklearn import datasets, model_selection

import jaxreg
from experiments.harness.contract import Row
from experiments.kit import data_sets, networks, stats, training

MLP, CNN, MNIST, COLUMNS = "digits MLP", "digits CNN", "MNIST inputs", "500 columns"
L1, LASSO, MCP = "L1", "group lasso", "group MCP"
PENALTIES = (L1, LASSO, MCP)
_KEPT = {MNIST: 50, COLUMNS: 20}
_NEURON_AXIS = {MLP: 1, CNN: 3}
_HIDDEN = {MLP: r"layers/[01]/kernel$", CNN: r"convs/[01]/kernel$"}
_IMAGES = 10_000
_ALLOWED = {L1: 0.01, LASSO: 0.01, MCP: 0.015}


@dataclasses.dataclass(frozen=True)
class Config:
    """Adam with warm-up and cosine; the landing after `landing` of the steps.

    `knot` of group MCP is in units of the root mean square of the weights at the start.
    """

    problems: tuple[str, ...] = (MLP, CNN, MNIST, COLUMNS)
    penalties: tuple[str, ...] = PENALTIES
    bases: tuple[float, ...] = (1e-5, 1e-3, 1e-1)
    seeds: int = 5
    steps: int = 2000
    landing: float = 0.75
    weight_target: float = 0.9
    neuron_target: float = 0.7
    knot: float = 3.0
    hidden: int = 100
    batch: int = 64
    peak: float = 1e-2
    warmup: int = 100


QUICK = Config(
    problems=(MLP,), penalties=(LASSO,), bases=(1e-5, 1e-1), seeds=1, steps=200
)


def folders(config: Config) -> tuple[str, ...]:
    """The folders in JAXREG_DATA that the problems are read from."""
    return ("mnist",) if MNIST in config.problems else ()


REQUIRES = folders


def cells(config: Config) -> list[Row]:
    """One cell per problem, penalty, strength and seed."""
    return [
        {"problem": problem, "penalty": penalty, "base": base, "seed": seed}
        for problem in config.problems
        for penalty in config.penalties
        for base in config.bases
        for seed in range(config.seeds)
    ]


def measure(config: Config, problem: str, penalty: str, base: float, seed: int) -> Row:
    """Trains one network to the wanted number, and counts what it missed."""
    numbers = _trained(config, problem, penalty, base, seed, _data(problem, seed))
    wanted = round(_target(config, problem, penalty) * int(numbers["total"]))
    return {
        "missed": int(numbers["zeros"]) - wanted,
        "test_accuracy": float(numbers["test_accuracy"]),
    }


@functools.lru_cache(maxsize=1)
def _data(problem: str, seed: int) -> data_sets.Split:
    if problem in (MLP, CNN):
        return data_sets.digits(seed)
    if problem == MNIST:
        split = data_sets.images("mnist")
        chosen = np.random.default_rng(seed).permutation(len(split.train_y))[:_IMAGES]
        return split._replace(
            train_x=split.train_x[chosen], train_y=split.train_y[chosen]
        )
    x, y = datasets.make_classification(
        3000, 500, n_informative=20, n_redundant=0, class_sep=2.0, random_state=seed
    )
    train_x, test_x, train_y, test_y = model_selection.train_test_split(
        x.astype(np.float32), y, test_size=1000, random_state=seed
    )
    return data_sets.Split(train_x, train_y, test_x, test_y)


def _target(config: Config, problem: str, penalty: str) -> float:
    """The wanted share of zeros among the units that the penalty counts."""
    if problem in _KEPT:
        return 1 - _KEPT[problem] / {MNIST: 784, COLUMNS: 500}[problem]
    return config.weight_target if penalty == L1 else config.neuron_target


@functools.partial(jax.jit, static_argnames=("config", "problem", "kind"))
def _trained(
    config: Config,
    problem: str,
    kind: str,
    base: jax.Array,
    seed: jax.Array,
    split: data_sets.Split,
) -> dict[str, jax.Array]:
    key, batch_key = jax.random.split(jax.random.key(seed))
    inputs, classes = split.train_x.shape[1], 2 if problem == COLUMNS else 10
    params, apply = (
        networks.init_cnn(8, (8, 16), classes, key)
        if problem == CNN
        else networks.init_mlp((inputs, config.hidden, config.hidden, classes), key)
    )
    penalty = _penalty(config, problem, kind, base, inputs)
    tx = jaxreg.target_sparsity(
        optax.adam(training.warmup_cosine(config.peak, config.steps, config.warmup)),
        penalty,
        _target(config, problem, kind),
        round(config.landing * config.steps),
    )
    data, loss = split[:2], training.cross_entropy(apply)
    total = _units(problem, kind, params)
    params = training.fit(loss, tx, params, data, config, batch_key)
    figures = jaxreg.measure(penalty, params)
    return {
        "zeros": figures["zeros" if kind == L1 else "dead_groups"],
        "total": jnp.asarray(total),
        "test_accuracy": training.accuracy(apply, params, *split[2:]),
    }


def _penalty(
    config: Config, problem: str, kind: str, base: Any, inputs: int
) -> jaxreg.Penalty:
    """The penalty on all kernels, on neurons, or on the first kernel's inputs."""
    if kind == L1:
        pattern = r"^layers/0/kernel$" if problem in _KEPT else r"kernel$"
        return jaxreg.by_path([(pattern, jaxreg.L1(base))])
    # Kernels start with a variance of 1 / inputs; the last one of the digits is free.
    spread = {MLP: 64, CNN: 9}.get(problem, inputs) ** -0.5
    size = jaxreg.L1(base) if kind == LASSO else jaxreg.MCP(base, config.knot * spread)
    if problem in _KEPT:
        return jaxreg.input_features(size, "^layers/0$")
    neurons = jaxreg.grouped(size, group_axis=_NEURON_AXIS[problem])
    return jaxreg.by_path([(_HIDDEN[problem], neurons)])


def _units(problem: str, kind: str, params: Any) -> int:
    """The number of units that the penalty counts."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    kernels = [leaf for path, leaf in leaves if "kernel" in jax.tree_util.keystr(path)]
    if problem in _KEPT:
        first = kernels[0]
        return first.size if kind == L1 else first.shape[0]
    if kind == L1:
        return sum(kernel.size for kernel in kernels)
    return sum(kernel.shape[-1] for kernel in kernels[:-1])


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """Means over seeds, the worst miss, and the distance from the best strength."""
    by = ("problem", "penalty", "base")
    table = stats.over_seeds(rows, by, ("test_accuracy",))
    for row in table:
        row["missed"] = max((r["missed"] for r in stats.alike(rows, row, by)), key=abs)
        rivals = stats.alike(table, row, by[:2])
        row["behind"] = stats.largest(rivals, "test_accuracy") - row["test_accuracy"]
    return table


def verdict(config: Config, rows: list[Row]) -> str:
    """The worst miss, and per penalty the worst distance from the best strength."""
    table = summarise(config, rows)
    missed = max(abs(row["missed"]) for row in table)
    behind = {
        kind: stats.largest(stats.select(table, penalty=kind), "behind")
        for kind in config.penalties
    }
    holds = missed <= 1 and all(behind[kind] <= _ALLOWED[kind] for kind in behind)
    points = ", ".join(f"{100 * far:.2f} for {kind}" for kind, far in behind.items())
    return (
        f"{'false' if holds else 'holds'}: the strength that `target_sparsity` starts "
        f"from {'need not' if holds else 'has to'} be tuned; from "
        f"{min(config.bases):g} to {max(config.bases):g} the wanted number is missed "
        f"by {missed:.0f} units at most, and mean test accuracy is at most so many "
        f"points behind that of the best strength: {points}."
    )


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """Test accuracy against the strength, a panel per problem."""
    problems = config.problems
    figure = matplotlib.figure.Figure(
        figsize=(3 * max(len(problems), 2), 3), layout="constrained"
    )
    for axes, problem in zip(
        figure.subplots(1, len(problems), squeeze=False)[0], problems, strict=True
    ):
        for kind in config.penalties:
            mine = stats.select(rows, problem=problem, penalty=kind)
            points = [(row["base"], 100 * row["test_accuracy"]) for row in mine]
            axes.plot(*zip(*points, strict=True), "o", ms=4, alpha=0.6, label=kind)
        axes.set_xscale("log")
        axes.set_title(problem, fontsize=9)
        axes.set_xlabel("strength at the start")
    figure.axes[0].set_ylabel("test accuracy, %")
    figure.axes[0].legend(fontsize=8)
    return figure
