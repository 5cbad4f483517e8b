"""Plots that several experiments draw."""

import statistics
from collections.abc import Iterable, Sequence

from matplotlib.axes import Axes

from experiments.harness.contract import Row
from experiments.kit import stats


def name_lines(axes: Axes, names: Sequence[str]) -> None:
    """Names the horizontal lines of `strip`, the first name on top."""
    axes.set_yticks(range(len(names)), list(names)[::-1])


def strip(
    axes: Axes,
    names: Sequence[str],
    points: Iterable[tuple[str, float]],
    *,
    label: str | None = None,
    color: str | None = None,
    marker: str = ".",
    shift: float = 0.0,
    size: float = 5.0,
    alpha: float = 0.8,
) -> None:
    """Draws (name, number) points, each on the line of its name, `shift` above it."""
    pairs = [
        (number, len(names) - 1 - names.index(name) + shift) for name, number in points
    ]
    numbers, heights = zip(*pairs, strict=True) if pairs else ((), ())
    axes.plot(numbers, heights, marker, color=color, ms=size, alpha=alpha, label=label)


def seeds_and_means(
    axes: Axes,
    names: Sequence[str],
    points: Sequence[tuple[str, float]],
    *,
    label: str,
    color: str,
    marker: str = ".",
    shift: float = 0.0,
) -> None:
    """Draws a dot per (name, number) point and a bar at the mean of each name."""
    strip(axes, names, points, label=label, color=color, marker=marker, shift=shift)
    groups: dict[str, list[float]] = {}
    for name, number in points:
        groups.setdefault(name, []).append(number)
    means = [(name, statistics.fmean(numbers)) for name, numbers in groups.items()]
    strip(axes, names, means, color=color, marker="|", shift=shift, size=14, alpha=1.0)


def by_size(
    axes: Axes, names: Sequence[str], series: dict[str, list[tuple[str, float]]]
) -> None:
    """Draws labelled series of (name, number) points, a marker each, with a legend."""
    for marker, (label, points) in zip("osD^v", series.items(), strict=False):
        strip(axes, names, points, label=label, marker=marker, size=6)
    name_lines(axes, names)
    axes.grid(axis="y", linewidth=0.3)
    axes.legend()


def means_and_seeds(
    axes: Axes,
    rows: Sequence[Row],
    x: str,
    y: str,
    *,
    style: str,
    color: str,
    label: str,
    positions: Sequence[float] | None = None,
    percent: bool = False,
) -> None:
    """Draws a line through the means over seeds, and a dot per seed.

    With `positions` the values of `x` are drawn at their index among these; with
    `percent` those of `y` in percent.
    """
    means = stats.over_seeds(rows, (x,), (y,))
    for group, mark, alpha in ((means, style, 1.0), (rows, ".", 0.5)):
        at = [positions.index(row[x]) if positions else row[x] for row in group]
        name = label if group is means else None
        heights = [(100 if percent else 1) * row[y] for row in group]
        axes.plot(at, heights, mark, color=color, ms=5, label=name, alpha=alpha)
