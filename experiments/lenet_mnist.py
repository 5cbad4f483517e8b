"""How sparse does LeNet-300-100 get on MNIST in one run?

Question: How many of the 266,200 weights of LeNet-300-100 can be exactly zero after
one ordinary training run with `jaxreg.regularize` and L1, without fine-tuning, and what
does it cost in accuracy?

Claim: L1 regularization gives smaller models.

Expected: at least 97.5 % exact zeros at a test accuracy of at least 98.0 %, mean of 3
seeds, in 20 passes over the data.

Cost: about 3 minutes on 2 cores; needs MNIST in JAXREG_DATA.

Command: python -m experiments lenet_mnist
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax

import jaxreg
from experiments import _data, _models, _stats, _train
from experiments._experiment import Row
from jaxreg import measures

REQUIRES = ("mnist",)

_SIZES = (784, 300, 100, 10)


@dataclasses.dataclass(frozen=True)
class Config:
    """Adam with warm-up and cosine; 9,000 batches of 128 are 19.2 passes."""

    strengths: tuple[float, ...] = (0.0, 1e-4)
    seeds: int = 3
    steps: int = 9000
    batch: int = 128
    peak: float = 1e-2
    warmup: int = 200
    width: float = 0.05


QUICK = Config(seeds=1, steps=500)


def cells(config: Config) -> list[Row]:
    """One cell per strength and seed; strength 0 is the plain optimizer."""
    return [
        {"strength": strength, "seed": seed}
        for strength in config.strengths
        for seed in range(config.seeds)
    ]


def measure(config: Config, strength: float, seed: int) -> Row:
    """Trains one network; the test set is looked at once, at the end."""
    found = _measure(config, strength, seed, _mnist())
    return jax.tree.map(lambda leaf: np.asarray(leaf).tolist(), found)


_mnist = functools.cache(functools.partial(_data.images, "mnist"))


@functools.partial(jax.jit, static_argnames="config")
def _measure(
    config: Config, strength: jax.Array, seed: jax.Array, split: _data.Split
) -> Row:
    init_key, batch_key = jax.random.split(jax.random.key(seed))
    params, apply = _models.init_mlp(_SIZES, init_key)
    penalty = jaxreg.on_kernels(jaxreg.L1(strength))
    rate = _train.warmup_cosine(config.peak, config.steps, config.warmup)
    params = _train.fit(
        _train.cross_entropy(apply),
        jaxreg.regularize(optax.adam(rate), penalty, config.width),
        params,
        split[:2],
        steps=config.steps,
        batch=config.batch,
        key=batch_key,
    )
    zeros = measures.zero_share(penalty, params)
    first = params["layers"][0]["kernel"][...]
    return {
        "test_accuracy": _train.accuracy(apply, params, *split[2:]),
        "zeros": zeros,
        "times_fewer": 1 / (1 - zeros),
        "dead_pixels": jnp.sum(jnp.all(first == 0, axis=1)),
        "weights_per_pixel": jnp.sum(first != 0, axis=1),
    }


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """Mean and standard error over the seeds."""
    measured = ("test_accuracy", "zeros", "times_fewer", "dead_pixels")
    return _stats.over_seeds(rows, ("strength",), measured)


def verdict(config: Config, rows: list[Row]) -> str:
    """Zeros and accuracy of the strongest penalty beside those of none."""
    table = summarise(config, rows)
    sparse = max(table, key=lambda row: row["strength"])
    dense = min(table, key=lambda row: row["strength"])
    word = "holds" if sparse["zeros"] > 0.5 else "false"
    return (
        f"{word}: {sparse['zeros']:.2%} exact zeros ({sparse['times_fewer']:.0f} times "
        f"fewer weights) at {sparse['test_accuracy']:.2%} test accuracy, against "
        f"{dense['test_accuracy']:.2%} without a penalty; mean of {sparse['seeds']} "
        "seeds, no fine-tuning."
    )


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """How many weights each input pixel keeps."""
    figure = matplotlib.figure.Figure(figsize=(4.5, 3.8), layout="constrained")
    axes = figure.subplots()
    strongest = max(config.strengths)
    chosen = [row["weights_per_pixel"] for row in rows if row["strength"] == strongest]
    image = axes.imshow(np.mean(chosen, axis=0).reshape(28, 28), cmap="cividis")
    figure.colorbar(image, ax=axes, label="weights kept of 300")
    axes.set_title(f"first layer at strength {strongest:g}")
    axes.set_xticks([])
    axes.set_yticks([])
    return figure
