"""The figure of choosing_strength: curves, a front, and the features kept."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import matplotlib.figure
import numpy as np

import jaxreg
from experiments.harness.contract import Row
from experiments.strength import _choices, _sweeps

# The model, and the error that is measured.
_WORDS = {
    _sweeps.DIABETES: ("diabetes, lasso", "mean squared error"),
    _sweeps.CANCER: ("breast cancer, logistic L1", "cross-entropy"),
    _sweeps.SPARSE: ("sparse truth, lasso", "mean squared error"),
    _sweeps.DIGITS: ("digits, MLP", "share of wrong labels"),
}
_LEAST = 80
_MARKS = {
    _choices.LEAST: "o",
    _choices.ONE: "s",
    _choices.AIC: "^",
    _choices.BIC: "v",
    _choices.EBIC: "D",
    _choices.UNTUNED: "X",
}


def draw(rows: list[Row], chosen: list[Row]) -> matplotlib.figure.Figure:
    """`rows` have the curves of each problem and seed, `chosen` a row per way."""
    figure = matplotlib.figure.Figure(figsize=(13, 7.6), layout="constrained")
    places = list(figure.subplots(2, 3).flat)
    for axes, problem in zip(places, _sweeps.PROBLEMS, strict=False):
        curves = [row for row in rows if row["problem"] == problem]
        _curve(axes, curves, [row for row in chosen if row["problem"] == problem])
        title, error = _WORDS[problem]
        axes.set_title(title, fontsize=10)
        axes.set_ylabel(error, fontsize=9)
        axes.set_yscale("log" if problem == _sweeps.DIGITS else "linear")
    _front(places[4], [row for row in rows if row["problem"] == _sweeps.DIGITS])
    _sets(places[5], [row for row in chosen if row["problem"] == _sweeps.SPARSE])
    places[0].legend(fontsize=7)
    return figure


def _curve(axes: Any, curves: list[Row], chosen: list[Row]) -> None:
    """Means over seeds; each choice at its mean strength and mean test error."""
    mean = {
        name: np.mean([row[name] for row in curves], axis=0)
        for name in ("strengths", "curve", "curve_se", "test")
    }
    x = mean["strengths"]
    axes.errorbar(
        x,
        mean["curve"],
        mean["curve_se"],
        fmt=".-",
        color="0.6",
        ms=3,
        capsize=1.5,
        label="validation, one standard error",
    )
    axes.plot(x, mean["test"], "-", color="C0", label="test")
    for place, (way, mark) in enumerate(_MARKS.items()):
        mine = [row for row in chosen if row["way"] == way]
        strength = np.exp(np.mean([np.log(row["strength"]) for row in mine]))
        error = np.mean([row["test_error"] for row in mine])
        axes.plot(strength, error, mark, color=f"C{place + 1}", ms=7, label=way)
    axes.set_xscale("log")
    axes.set_xlabel("strength", fontsize=9)


def _front(axes: Any, curves: list[Row]) -> None:
    """A point per strength and seed; the front of the means is joined."""
    for row in curves:
        accuracy = [100 * (1 - error) for error in row["test"]]
        axes.plot([100 * x for x in row["zero_share"]], accuracy, ".", color="0.6")
    sparsity, accuracy = (
        100 * np.mean([row[name] for row in curves], axis=0)
        for name in ("zero_share", "test")
    )
    accuracy = 100 - accuracy
    front = np.asarray(
        jaxreg.model_selection.pareto_front(
            jnp.asarray(sparsity), jnp.asarray(accuracy)
        )
    )
    axes.plot(sparsity[~front], accuracy[~front], "o", mfc="none", color="C0")
    axes.plot(
        sparsity[front], accuracy[front], "o-", color="C3", label="front of means"
    )
    axes.set_xlabel("zero weights, %", fontsize=9)
    axes.set_ylim(_LEAST, 100)
    axes.set_ylabel(f"test accuracy, % (below {_LEAST} not shown)", fontsize=9)
    axes.set_title("digits, MLP: accuracy and sparsity", fontsize=10)
    axes.legend(fontsize=8)


def _sets(axes: Any, chosen: list[Row]) -> None:
    """Features kept for nothing, and missed, by way; a point per seed."""
    ways = list(dict.fromkeys(row["way"] for row in chosen))
    for column, mark, shift in (
        ("false_positives", "o", 0),
        ("false_negatives", "x", 1),
    ):
        counts = [row[column] for row in chosen]
        heights = [ways.index(row["way"]) - 0.12 + 0.24 * shift for row in chosen]
        label = column.replace("_", " ")
        axes.plot(counts, heights, mark, ms=4, alpha=0.6, label=label)
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(-0.3, 4000)
    axes.set_yticks(range(len(ways)), ways, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("features", fontsize=9)
    axes.set_title("sparse truth, lasso: wrong features", fontsize=10)
    axes.legend(fontsize=8, loc="lower right")
