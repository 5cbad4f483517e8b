"""What do zeros cost a small language model?

Question: A GPT of 2 layers, width 64, learns the characters of Tiny Shakespeare. What
does its validation loss, in nats per character, pay for exact zeros in the kernels of
attention, MLP and output: by magnitude pruning after AdamW, with and without a refit,
by `jaxreg.shrink` behind Adam, by `jaxreg.regularize`, its strength constant or rising
from 0 over the first half, by `jaxreg.target_sparsity`, and by the removal of whole
heads and MLP neurons? Every way has the same number of steps, a refit included.

Claim: Most weights of a language model can be zero.

Expected: half of the weights cost at most 0.05 nats by any way. At 80 % a strength that
is constant from the first step costs several tenths, one that rises less than half of
that; cutting without a refit is worst; whole heads and neurons cost more than as many
single weights. The last 10 % of the text are the test set: no choice was made on them.
On another part, `--train_share 0.85 --until 0.9`, one network each chose the rate, the
best for AdamW of 1e-3, 3e-3 and 1e-2, the refit's, 3e-3 or 1e-2, its length, 200 or 500
steps, and strengths that give about 50, 80 and 90 %.

Corrected: half of the weights cost a hair more than 0.05 by a cut and a refit, since
AdamW then trains for fewer steps. Whole heads and neurons cost less than single weights
under a constant strength, which kills attention first.

Cost: about 15 minutes on 2 cores, 15 seconds a network; needs Tiny Shakespeare in
JAXREG_DATA. The usual size, on a GPU (not run; strengths act with the learning rate):
`python -m experiments language_model --layers 6 --width 384 --heads 6 --context 256
--batch 64 --steps 5000 --refit_steps 1000 --peak 1e-3 --refit_peak 1e-3 --seeds 2`.

Command: python -m experiments language_model
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import matplotlib.figure
import numpy as np

from experiments.harness.contract import Row
from experiments.kit import data_sets, stats
from experiments.language_model import _language
from experiments.language_model._language import (
    CUT,
    DENSE,
    REFIT,
    REGULARIZE,
    RISING,
    SHRINK,
    TARGET,
    UNITS,
    WAYS,
)

REQUIRES = ("tinyshakespeare",)

_MARKERS = dict(zip(WAYS, "*xovsPD^", strict=True))
_SHARE = 0.8
# Above the loss without zeros; what costs more would flatten the figure.
_MOST = 0.9


@dataclasses.dataclass(frozen=True)
class Config:
    """Batches of random windows; warm-up over a tenth of the steps, cosine to 0.

    `ways` begins with AdamW. Trains on the first `train_share` of the text and measures
    on what follows, until the share `until`. `shares` are of zeros, for pruning and
    `target_sparsity`, whose landing comes after the share `landing` of the steps;
    `base` is the strength that it steers from. The refit's steps are part of `steps`.
    """

    ways: tuple[str, ...] = WAYS
    shares: tuple[float, ...] = (0.5, 0.8, 0.9)
    shrink_strengths: tuple[float, ...] = (0.04, 0.1, 0.2)
    strengths: tuple[float, ...] = (5e-6, 2e-5)
    rising_strengths: tuple[float, ...] = (6e-5, 1.5e-4)
    unit_strengths: tuple[float, ...] = (2e-5, 6e-5)
    seeds: int = 5
    layers: int = 2
    width: int = 64
    heads: int = 4
    context: int = 64
    batch: int = 16
    steps: int = 1000
    refit_steps: int = 200
    peak: float = 1e-2
    refit_peak: float = 1e-2
    clip: float = 1.0
    weight_decay: float = 0.1
    base: float = 1e-6
    landing: float = 0.75
    train_share: float = 0.9
    until: float = 1.0


QUICK = Config(
    ways=(DENSE, CUT, UNITS),
    shares=(0.5,),
    shrink_strengths=(0.3,),
    strengths=(1e-4,),
    rising_strengths=(1e-4,),
    unit_strengths=(1e-3,),
    seeds=1,
    layers=1,
    width=16,
    heads=2,
    context=16,
    batch=8,
    steps=200,
    refit_steps=50,
    base=1e-5,
    until=0.91,
)


def cells(config: Config) -> list[Row]:
    """One cell per seed, way and setting: a strength, or the share of zeros asked."""
    settings = {
        DENSE: (0.0,),
        CUT: config.shares,
        REFIT: config.shares,
        SHRINK: config.shrink_strengths,
        REGULARIZE: config.strengths,
        RISING: config.rising_strengths,
        TARGET: config.shares,
        UNITS: config.unit_strengths,
    }
    return [
        {"seed": seed, "way": way, "setting": setting}
        for seed in range(config.seeds)
        for way in config.ways
        for setting in settings[way]
    ]


def measure(config: Config, seed: int, way: str, setting: float) -> Row:
    """Trains one network, and looks at the held-out text once."""
    train, held = _texts(config)
    symbols = 1 + int(max(train.max(), held.max()))
    if way in (DENSE, CUT, REFIT):
        refit = config.refit_steps if way == REFIT else 0
        params = _dense(config, symbols, config.steps - refit, seed)
        if way != DENSE:
            params = _language.cut(params, setting)
        if refit:
            params = _language.refitted(config, symbols, refit, params, seed, train)
    else:
        start, steps = _language.started(config, symbols, seed), config.steps
        params = _language.trained(
            config, way, symbols, steps, start, setting, seed, train
        )
    found = _language.measured(config, symbols, params, held)
    return {name: np.asarray(number).item() for name, number in found.items()}


@functools.cache
def _texts(config: Config) -> tuple[np.ndarray, np.ndarray]:
    text = data_sets.tiny_shakespeare()
    first, last = (
        round(part * len(text)) for part in (config.train_share, config.until)
    )
    return text[:first], text[first:last]


@functools.cache
def _dense(config: Config, symbols: int, steps: int, seed: int) -> Any:
    start, (train, _) = _language.started(config, symbols, seed), _texts(config)
    return _language.trained(config, DENSE, symbols, steps, start, 0.0, seed, train)


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """Means over the seeds, and the cost: the loss less that of the dense networks."""
    measured = (
        "zeros",
        "validation_loss",
        "dead_heads",
        "dead_neurons",
        "attention_zeros",
    )
    table = stats.over_seeds(rows, ("way", "setting"), measured)
    dense = next(row["validation_loss"] for row in table if row["way"] == DENSE)
    return [{**row, "cost": row["validation_loss"] - dense} for row in table]


def verdict(config: Config, rows: list[Row]) -> str:
    """What about 80 % of zeros cost, by each way, the cheapest first."""
    table = summarise(config, rows)
    dense = next(row for row in table if row["way"] == DENSE)
    nearest = [
        min(
            (row for row in table if row["way"] == way),
            key=lambda row: abs(row["zeros"] - _SHARE),
        )
        for way in config.ways[1:]
    ]
    told = [
        f"{row['cost']:.2f} by {row['way']} ({row['zeros']:.0%})"
        for row in sorted(nearest, key=lambda row: float(row["cost"]))
    ]
    return (
        f"measured: of {dense['validation_loss']:.3f} nats per character, about "
        f"{_SHARE:.0%} zeros (in brackets) cost {'; '.join(told)}."
    )


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """Validation loss against the share of zeros: means, errors and single networks."""
    figure = matplotlib.figure.Figure(figsize=(7.5, 5), layout="constrained")
    axes = figure.subplots()
    table = summarise(config, rows)
    for way in config.ways:
        color = f"C{WAYS.index(way)}"
        mine = [row for row in rows if row["way"] == way]
        single = [(100 * r["zeros"], r["validation_loss"]) for r in mine]
        axes.plot(*zip(*single, strict=True), ".", color=color, alpha=0.3)
        means = [row for row in table if row["way"] == way]
        axes.errorbar(
            [100 * row["zeros"] for row in means],
            [row["validation_loss"] for row in means],
            [row["validation_loss_se"] for row in means],
            marker=_MARKERS[way],
            color=color,
            capsize=3,
            label=way,
        )
    dense = table[0]["validation_loss"]
    axes.axhline(dense, color="C0", lw=0.8, ls=":")
    axes.set_ylim(dense - 0.05, dense + _MOST)
    axes.set_xlabel("exact zeros of the kernels' weights, %")
    axes.set_ylabel(f"validation loss, nats (above {dense + _MOST:.2f} not shown)")
    axes.legend(fontsize=8, loc="upper left")
    return figure
