"""What does each elementwise penalty look like, and what does its prox do?

Question: For every penalty that is a sum over weights: its value, and its prox at three
steps: half, 0.95 and 1.5 times the bound up to which penalty plus proximity is convex,
and a small, a middle and a large step where there is no such bound.

Claim: Every prox is the global minimiser at every step, beyond the bound too.

Expected: no jump below the bound, a jump above it; none at any step for convex
penalties; a jump at every step for L0, LHalf, Lp, CappedL1 and the grid.

Cost: about 10 seconds on 2 cores.

Command: python -m experiments gallery
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
from matplotlib.axes import Axes

import jaxreg
from experiments.harness.contract import Row

COLUMNS = 4
COLOURS = ("tab:blue", "tab:orange", "tab:red")
Prox = Callable[[np.ndarray, float], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Config:
    """The points of a curve, and its least reach on both sides of 0."""

    points: int = 601
    reach: float = 3.0


QUICK = Config(points=101)


class Entry(NamedTuple):
    """A penalty and the step beyond which its prox may jump, if that is finite."""

    penalty: jaxreg.Penalty
    bound: float | None = None

    @property
    def steps(self) -> tuple[float, float, float]:
        if self.bound is None:
            return (0.25, 0.75, 1.5)
        return (0.5 * self.bound, 0.95 * self.bound, 1.5 * self.bound)


_GRID = (-1.0, 0.0, 1.0)
GALLERY = {
    "L1": Entry(jaxreg.L1(1.0)),
    "L2": Entry(jaxreg.L2(0.5)),
    "ElasticNet": Entry(jaxreg.ElasticNet(l1=0.5, l2=0.5)),
    "Huber": Entry(jaxreg.Huber(1.0, knot=1.0)),
    "MCP": Entry(jaxreg.MCP(1.0, knot=1.5), bound=1.5),
    "SCAD": Entry(jaxreg.SCAD(1.0, knot=2.0, ratio=4.0), bound=1.5),
    "TransformedL1": Entry(jaxreg.TransformedL1(1.0, scale=1.0), bound=0.25),
    "LogSum": Entry(jaxreg.LogSum(1.0, eps=1.0), bound=1.0),
    "CappedL1": Entry(jaxreg.CappedL1(1.0, knot=1.0)),
    "Lp": Entry(jaxreg.Lp(1.0, power=0.75)),
    "LHalf": Entry(jaxreg.Lp(1.0, 0.5)),
    "L0": Entry(jaxreg.L0(1.0)),
    "PiecewiseAffine.to_grid": Entry(jaxreg.PiecewiseAffine.to_grid(1.0, _GRID)),
    "PiecewiseAffine.convex": Entry(jaxreg.PiecewiseAffine.convex(1.0, _GRID)),
}


def cells(config: Config) -> list[Row]:
    """One cell per penalty."""
    return [{"penalty": name} for name in GALLERY]


def measure(config: Config, penalty: str) -> Row:
    """The curves, the largest |v| that becomes 0, and the jumps between the points."""
    entry = GALLERY[penalty]
    with jax.enable_x64(True):
        prox = _compiled(entry.penalty)
        thresholds = [_threshold(prox, step) for step in entry.steps]
        reach = max(config.reach, 1.4 * max(thresholds))
        points = np.linspace(-reach, reach, config.points)
        values = jax.vmap(entry.penalty.value)(jnp.asarray(points))
        proxes = [prox(points, step) for step in entry.steps]
        jumps = [_jumps(prox, points, step) for step in entry.steps]
    return {
        "call": repr(entry.penalty),
        "convex": entry.penalty.is_convex,
        "steps": list(entry.steps),
        "thresholds": thresholds,
        "points": points.tolist(),
        "values": np.asarray(values).tolist(),
        "proxes": [curve.tolist() for curve in proxes],
        "jumps": [jump.tolist() for jump in jumps],
    }


def _compiled(penalty: jaxreg.Penalty) -> Prox:
    prox = jax.jit(penalty.prox)
    return lambda points, step: np.asarray(prox(jnp.asarray(points), jnp.asarray(step)))


def _threshold(prox: Prox, step: float) -> float:
    """The largest |v| whose prox is 0, by repeated sections of an interval."""
    low, high = 0.0, 64.0
    for _ in range(8):
        points = np.linspace(low, high, 129)
        is_zero = prox(points, step) == 0
        if not is_zero.any():
            return 0.0
        last = int(np.flatnonzero(is_zero)[-1])
        low, high = points[last], points[min(last + 1, 128)]
    return float(low)


def _jumps(prox: Prox, points: np.ndarray, step: float) -> np.ndarray:
    """The change between neighbouring points after bisection has joined them."""
    low, high = points[:-1].copy(), points[1:].copy()
    for _ in range(50):
        middle = 0.5 * (low + high)
        below, at, above = (prox(x, step) for x in (low, middle, high))
        is_left = np.abs(at - below) > np.abs(above - at)
        low, high = np.where(is_left, low, middle), np.where(is_left, middle, high)
    change = np.abs(prox(high, step) - prox(low, step))
    return np.where(change > 1e-6, change, 0.0)


def summarise(config: Config, rows: list[Row]) -> list[Row]:
    """The call of each penalty, and its threshold and jump at the three steps."""
    return [
        {
            "penalty": row["penalty"],
            "call": row["call"],
            "convex": row["convex"],
            "steps": row["steps"],
            "thresholds": [round(threshold, 6) for threshold in row["thresholds"]],
            "largest_jumps": [round(max(jumps), 6) for jumps in row["jumps"]],
        }
        for row in rows
    ]


def verdict(config: Config, rows: list[Row]) -> str:
    """The penalties whose prox jumps where it should not, or the reverse."""
    table = summarise(config, rows)
    wrong = [row["penalty"] for row in table if not _is_expected(row)]
    word = "false" if wrong else "holds"
    convex = sum(row["convex"] for row in table)
    told = f"; not so for {', '.join(wrong)}" if wrong else ""
    return (
        f"{word}: of {len(table)} penalties the {convex} convex ones have a continuous "
        "prox at all steps, the ones with a convexity bound jump beyond it and not "
        f"before, the others jump at every step{told}."
    )


def _is_expected(row: Row) -> bool:
    jumps = [jump > 0 for jump in row["largest_jumps"]]
    if row["convex"]:
        return jumps == [False] * 3
    has_bound = GALLERY[row["penalty"]].bound is not None
    return jumps == ([False, False, True] if has_bound else [True] * 3)


def plot(config: Config, rows: list[Row]) -> matplotlib.figure.Figure:
    """Small multiples: the value above, the prox at three steps below it."""
    lines = -(-len(rows) // COLUMNS)
    figure = matplotlib.figure.Figure(
        figsize=(3.1 * COLUMNS, 4.3 * lines), layout="constrained"
    )
    panels = figure.subplots(2 * lines, COLUMNS, height_ratios=[2, 3] * lines)
    for axes in panels.flat:
        axes.set_visible(False)
    for index, row in enumerate(rows):
        line, column = divmod(index, COLUMNS)
        _draw_value(panels[2 * line, column], row)
        _draw_prox(panels[2 * line + 1, column], row)
    return figure


def _draw_value(axes: Axes, row: Row) -> None:
    axes.set_visible(True)
    points, values = np.asarray(row["points"]), np.asarray(row["values"])
    if row["penalty"] == "L0":
        # Its value differs from 1 at a single point.
        values = np.where(points == 0, np.nan, values)
        axes.plot(0, 0, ".", color="black")
    axes.plot(points, values, color="black", linewidth=1.3)
    axes.set_title(row["penalty"], fontsize=11, fontweight="bold")
    axes.set_ylabel("value", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.margins(x=0)


def _draw_prox(axes: Axes, row: Row) -> None:
    axes.set_visible(True)
    points = np.asarray(row["points"])
    axes.plot(points, points, "--", color="grey", linewidth=0.8)
    curves = zip(row["steps"], row["proxes"], row["jumps"], strict=True)
    for index, (step, prox, jumps) in enumerate(curves):
        breaks = np.flatnonzero(np.asarray(jumps) > 0) + 1
        broken = np.insert(np.asarray(prox, float), breaks, np.nan)
        where = np.insert(points, breaks, np.nan)
        # Thinner on top, so that curves which coincide all show.
        color, width, label = COLOURS[index], 3.4 - 1.2 * index, f"step {step:.3g}"
        axes.plot(where, broken, label=label, color=color, linewidth=width)
    axes.set_ylabel("prox", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.margins(x=0)
    axes.legend(fontsize=7, loc="upper left", frameon=False)
