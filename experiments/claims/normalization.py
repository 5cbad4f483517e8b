"""Does L1 remove units in front of a normalization layer?

Question: BatchNorm divides a unit's output by its standard deviation, so that a smaller
kernel in front of it changes nothing. Does a group lasso on these kernels still remove
neurons and filters, and does L1 on the scales of the normalization layer? Four networks
learn scikit-learn's digits: an MLP with and without BatchNorm, a CNN with BatchNorm and
a residual MLP with LayerNorm in front of each block.

Claim: a penalty on kernels is lost in front of BatchNorm, and one on its scales is not.

Expected: with BatchNorm at most half as many dead neurons as without it at the same
strength, with kernels far smaller; by L1 on the scales more dead units than by the
group lasso on the kernels, at test accuracies within 1 point of the network without a
penalty. Found: fewer, but more than half as many at three of four strengths.

Rule: holds with conditions if at every strength the group lasso removes at most half as
many neurons of the MLP with BatchNorm as without, and L1 on the scales removes more
units than it within 1 point of test accuracy, in the MLP and the CNN with BatchNorm;
false otherwise. The residual network is shown and not judged.

Cost: 6 minutes on 2 cores.

Command: python -m experiments normalization
"""

import dataclasses
import functools
from typing import Any

import jax
import matplotlib.figure
import numpy as np
import optax
from flax import nnx

import jaxreg
from experiments.harness.contract import Row
from experiments.kit import data_sets, stats, training

MLP, MLP_NORM, CNN = "MLP", "MLP, BatchNorm", "CNN, BatchNorm"
RESIDUAL = "residual MLP, LayerNorm"
KERNELS, SCALES, FREE = "group lasso on kernels", "L1 on scales", "no penalty"
WAYS = {
    MLP: (FREE, KERNELS),
    MLP_NORM: (FREE, KERNELS, SCALES),
    CNN: (FREE, KERNELS, SCALES),
    RESIDUAL: (FREE, KERNELS, SCALES),
}
# The layers whose neurons or filters a group lasso may remove.
_HIDDEN = {
    MLP: ("first", "second"),
    MLP_NORM: ("first", "second"),
    CNN: ("first", "second"),
    RESIDUAL: ("up_0", "up_1"),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """Adam with warm-up and cosine, batches drawn with replacement."""

    strengths: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2)
    networks: tuple[str, ...] = tuple(WAYS)
    hidden: int = 128
    seeds: int = 5
    steps: int = 3000
    batch: int = 32
    peak: float = 1e-2
    warmup: int = 100
    width: float = 0.05


QUICK = Config(strengths=(1e-3,), networks=(MLP, MLP_NORM), seeds=1, steps=600)


def batch_norm(width: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """With the statistics of the batch at hand, in evaluation too."""
    return nnx.BatchNorm(width, use_running_average=False, rngs=rngs)


class Dense(nnx.Module):
    """A dense network of two hidden layers, with BatchNorm behind each or without."""

    def __init__(self, config: Config, has_norm: bool, *, rngs: nnx.Rngs):
        width = config.hidden
        self.first = nnx.Linear(64, width, rngs=rngs)
        self.second = nnx.Linear(width, width, rngs=rngs)
        self.out = nnx.Linear(width, 10, rngs=rngs)
        norms = [batch_norm(width, rngs) for _ in range(2)] if has_norm else []
        self.norms = nnx.List(norms)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of shape (samples, classes)."""
        for index, layer in enumerate((self.first, self.second)):
            x = layer(x)
            x = nnx.relu(self.norms[index](x) if self.norms else x)
        return self.out(x)


class Convolutional(nnx.Module):
    """Two convolutions, each with BatchNorm behind it, and a dense layer."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.first = nnx.Conv(1, 8, (3, 3), rngs=rngs)
        self.second = nnx.Conv(8, 16, (3, 3), strides=2, rngs=rngs)
        self.out = nnx.Linear(16 * 16, 10, rngs=rngs)
        self.norms = nnx.List([batch_norm(8, rngs), batch_norm(16, rngs)])

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of shape (samples, classes), of flat images of 8x8 pixels."""
        x = x.reshape(-1, 8, 8, 1)
        for norm, layer in zip(self.norms, (self.first, self.second), strict=True):
            x = nnx.relu(norm(layer(x)))
        return self.out(x.reshape(len(x), -1))


class Residual(nnx.Module):
    """Two blocks `x + down(relu(up(LayerNorm(x))))` between two dense layers."""

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        width = config.hidden
        self.embed = nnx.Linear(64, 64, rngs=rngs)
        self.norms = nnx.List([nnx.LayerNorm(64, rngs=rngs) for _ in range(2)])
        self.up_0, self.up_1 = (nnx.Linear(64, width, rngs=rngs) for _ in range(2))
        self.down = nnx.List([nnx.Linear(width, 64, rngs=rngs) for _ in range(2)])
        self.out = nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of shape (samples, classes)."""
        x = self.embed(x)
        ups = self.up_0, self.up_1
        for norm, up, down in zip(self.norms, ups, self.down, strict=True):
            x = x + down(nnx.relu(up(norm(x))))
        return self.out(x)


def cells(config: Config) -> list[Row]:
    """One cell per network, way, strength and seed."""
    return [
        {"network": network, "way": way, "strength": strength, "seed": seed}
        for network in config.networks
        for way in WAYS[network]
        for strength in ((0.0,) if way == FREE else config.strengths)
        for seed in range(config.seeds)
    ]


def measure(config: Config, network: str, way: str, strength: float, seed: int) -> Row:
    """Trains one network and counts the units that are dead."""
    split = data_sets.digits(seed)
    row = _measure(config, network, way, strength, seed, split)
    return jax.tree.map(lambda number: np.asarray(number).item(), row)


@functools.partial(jax.jit, static_argnames=("config", "network", "way"))
def _measure(
    config: Config,
    network: str,
    way: str,
    strength: jax.Array,
    seed: jax.Array,
    split: data_sets.Split,
) -> Row:
    init_key, batch_key = jax.random.split(jax.random.key(seed))
    rngs = nnx.Rngs(params=init_key)
    model = _model(config, network, rngs)
    graph, *states = nnx.split(model, nnx.Param, nnx.BatchStat)
    params, statistics = states

    def apply(params: Any, x: Any) -> jax.Array:
        # A copy, since BatchNorm writes its statistics.
        return nnx.merge(graph, params, statistics, copy=True)(x)

    kernels, scales = _penalties(network, strength)
    tx = optax.adam(training.warmup_cosine(config.peak, config.steps, config.warmup))
    if way != FREE:
        tx = jaxreg.regularize(tx, scales if way == SCALES else kernels, config.width)
    loss = training.cross_entropy(apply)
    params = training.fit(loss, tx, params, split[:2], config, batch_key)
    hidden = [params[name]["kernel"][...] for name in _HIDDEN[network]]
    if way == SCALES:
        dead = jaxreg.measure(scales, params)["zero_share"]
    else:
        count = sum(kernel.shape[-1] for kernel in hidden)
        dead = jaxreg.measure(kernels, params)["dead_groups"] / count
    return {
        "dead_share": dead,
        "test_accuracy": training.accuracy(apply, params, *split[2:]),
        "kernel_norm": optax.tree.norm(hidden),
    }


def _model(config: Config, network: str, rngs: nnx.Rngs) -> nnx.Module:
    if network == CNN:
        return Convolutional(rngs=rngs)
    if network == RESIDUAL:
        return Residual(config, rngs=rngs)
    return Dense(config, network == MLP_NORM, rngs=rngs)


def _penalties(network: str, strength: Any) -> tuple[jaxreg.Penalty, jaxreg.Penalty]:
    """A group lasso on the units of the hidden kernels, and L1 on all scales."""
    lasso, layers = jaxreg.L1(strength), f"^({'|'.join(_HIDDEN[network])})$"
    preset = jaxreg.filters if network == CNN else jaxreg.neurons
    return preset(lasso, layers), jaxreg.channel_scales(lasso)


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """Mean and standard error over the seeds."""
    measured = ("dead_share", "test_accuracy", "kernel_norm")
    return stats.over_seeds(rows, ("network", "way", "strength"), measured)


def verdict(config: Config, rows: list[Row]) -> str:
    """Compares dead neurons with and without BatchNorm at the same strengths."""
    table = summarise(config, rows)

    def dead(network: str, way: str) -> list[float]:
        return [r["dead_share"] for r in stats.select(table, network=network, way=way)]

    plain, evaded = dead(MLP, KERNELS), dead(MLP_NORM, KERNELS)
    pairs = list(zip(plain, evaded, strict=True))
    is_evaded = all(with_norm <= bare / 2 for bare, with_norm in pairs)
    shares = {}
    for network in (n for n in config.networks if n in (MLP_NORM, CNN)):
        (free,) = stats.select(table, network=network, way=FREE)
        for way in (KERNELS, SCALES):
            good = [
                row["dead_share"]
                for row in stats.select(table, network=network, way=way)
                if row["test_accuracy"] >= free["test_accuracy"] - 0.01
            ]
            shares[network, way] = max(good, default=0.0)
    helps = all(shares[n, SCALES] > shares[n, KERNELS] for n, _ in shares)
    text = "; ".join(f"{n}, {way}: {x:.0%} dead" for (n, way), x in shares.items())
    ends = ", ".join(f"{bare:.0%} and {with_norm:.0%}" for bare, with_norm in pairs)
    return (
        f"{'holds with conditions' if is_evaded and helps else 'false'}: the same "
        f"group lasso removes of the neurons without and with BatchNorm {ends} at "
        "strengths "
        f"{', '.join(f'{s:g}' for s in config.strengths)}. Most units removed within 1 "
        f"point of test accuracy: {text}."
    )


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """Accuracy against dead units, a panel for each network."""
    count = len(config.networks)
    figure = matplotlib.figure.Figure(figsize=(3 * count, 3.4), layout="constrained")
    panels = figure.subplots(1, count, sharey=True, squeeze=False)[0]
    for axes, network in zip(panels, config.networks, strict=True):
        for way, marker in zip((FREE, KERNELS, SCALES), "osD", strict=True):
            points = stats.select(rows, network=network, way=way)
            axes.scatter(
                [100 * row["dead_share"] for row in points],
                [100 * row["test_accuracy"] for row in points],
                label=way,
                marker=marker,
                alpha=0.6,
                s=20,
            )
        axes.set_title(network, fontsize=9)
        axes.set_xlabel("dead units, %")
    panels[0].set_ylabel("test accuracy, %")
    panels[-1].legend(fontsize=8)
    return figure
