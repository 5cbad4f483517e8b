"""The figure of `smaller_models`: accuracy, bytes and time of networks with zeros."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.figure
import matplotlib.ticker
import numpy as np

from experiments.harness.contract import Row
from experiments.smaller_models import _inference, _lenet

# DeepHoyer (Yang, Wen and Li 2020): % of the weights of LeNet-300-100 left, accuracy.
PUBLISHED = (100 / 54, 98.4)
_PANELS = (
    ("mnist", _lenet.LENET_300, (96.5, 98.8)),
    ("fashion-mnist", _lenet.LENET_300, (85.0, 91.0)),
    ("mnist", _lenet.LENET_5, (97.5, 99.5)),
)
_FORMATS = {"csr32": "o", "csr16": "s", "mask": "^", "smaller": "D"}
_LABELS = {
    "csr32": "CSR, 32-bit columns",
    "csr16": "CSR, 16-bit columns",
    "mask": "a bit per weight and values",
    "smaller": "dense, dead units cut out",
    "smaller_numpy": "NumPy,\ndead units cut out",
    "csr_scipy": "SciPy CSR",
    "smaller_csr_scipy": "SciPy CSR,\ndead units cut out",
    "smaller_jax": "JAX,\ndead units cut out",
    "bcoo_jax": "JAX BCOO",
}
_MARKS = {"L1": "o", "MCP": "s", "neurons": "^"}


def draw(table: list[Row]) -> matplotlib.figure.Figure:
    """A panel of accuracy per network and data set, one of bytes and one of times."""
    figure = matplotlib.figure.Figure(figsize=(12, 8), layout="constrained")
    places = list(figure.subplots(2, 3).flat)
    for axes, (data, model, limits) in zip(places, _PANELS, strict=False):
        mine = [r for r in table if (r.get("data"), r["model"]) == (data, model)]
        _accuracy(axes, [row for row in mine if row["part"] == "test"], limits)
        axes.set_title(f"{model}, {data}", fontsize=10)
        if (data, model) == _PANELS[0][:2]:
            axes.plot(*PUBLISHED, "k*", markersize=12, label="published: DeepHoyer")
    _bytes(places[3], [row for row in table if row["part"] == "test"])
    _times(places[4], [row for row in table if row["part"] == "inference"])
    keys = places[5]
    keys.axis("off")
    for axes, title, corner in (
        (places[0], "accuracy (open marks: before the refit)", "upper left"),
        (places[4], "inference", "lower left"),
    ):
        found = axes.get_legend_handles_labels()
        small = {"fontsize": 8, "title_fontsize": 8, "labelspacing": 0.2}
        keys.add_artist(keys.legend(*found, title=title, loc=corner, **small))
    return figure


def _accuracy(axes: Any, rows: list[Row], limits: tuple[float, float]) -> None:
    kinds = dict.fromkeys((row["recipe"], row["way"], row["by"]) for row in rows)
    for recipe, way, by in kinds:
        key = (recipe, way, by)
        mine = [r for r in rows if (r["recipe"], r["way"], r["by"]) == key]
        if recipe == "dense":
            best = max(mine[0]["accuracy"], mine[0]["refit_accuracy"])
            axes.axhline(100 * best, color="0.4", ls=":", label="dense")
            continue
        colour = "C3" if recipe == "long" else "C0" if by == _lenet.FIXED else "C1"
        for column in ("accuracy", "refit_accuracy"):
            is_refit = column == "refit_accuracy"
            axes.errorbar(
                [100 * row["share_left"] for row in mine],
                [np.clip(100 * row[column], *limits) for row in mine],
                [100 * np.nan_to_num(row[f"{column}_se"]) for row in mine],
                fmt=_MARKS[way],
                color=colour,
                markerfacecolor=colour if is_refit else "none",
                label=f"{way}, {by}, {recipe} run" if is_refit else None,
            )
    axes.set_xlim(0.8, 25)
    axes.set_ylim(*limits)
    axes.set_ylabel(f"test accuracy, % (below {limits[0]:g} at the edge)")
    _shares(axes)


def _shares(axes: Any) -> None:
    _logarithmic(axes, (1, 2, 5, 10, 20, 50))
    axes.set_xlabel("% of the weights left")


def _logarithmic(axes: Any, ticks: Sequence[float]) -> None:
    """The first axis, with these of the ticks that lie in its range."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xticks([tick for tick in ticks if low <= tick <= high])
    axes.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())


def _bytes(axes: Any, rows: list[Row]) -> None:
    """Of the sparse LeNet-300-100 on MNIST."""
    is_mine = [(row["data"], row["model"]) == _PANELS[0][:2] for row in rows]
    mine = [r for r, mine in zip(rows, is_mine, strict=True) if mine]
    mine = [row for row in mine if row["recipe"] != "dense"]
    left = [100 * row["share_left"] for row in mine]
    for name, mark in _FORMATS.items():
        fewer = [row["bytes_dense"] / row[f"bytes_{name}"] for row in mine]
        axes.plot(left, fewer, mark, ms=5, label=_LABELS[name])
    axes.plot(left, [100 / share for share in left], "k.", ms=3, label="weights alone")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    _shares(axes)
    axes.set_ylabel("times fewer bytes than dense")
    axes.set_title(f"{_PANELS[0][1]}, {_PANELS[0][0]}: bytes stored", fontsize=10)
    axes.legend(fontsize=8)


def _times(axes: Any, rows: list[Row]) -> None:
    """A line per way to compute, a mark per network and batch."""
    names = list(_inference.AGAINST)
    for place, row in enumerate(rows):
        points = [
            (row[f"ratio_{name}"], height + 0.1 * (place - len(rows) / 2))
            for height, name in enumerate(names)
            if row.get(f"ratio_{name}")
        ]
        label = f"{row['model']}, {row['way']}, batch {row['batch']}"
        axes.plot(*zip(*points, strict=True), "o", ms=5, label=label)
    axes.set_yticks(range(len(names)), [_LABELS[name] for name in names], fontsize=8)
    axes.axvline(1.0, color="0.4", ls=":")
    _logarithmic(axes, (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50))
    axes.set_xlabel("time over that of the dense network")
    axes.set_title("inference", fontsize=10)
