"""Means over seeds with their standard errors."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


def over_seeds(
    rows: Sequence[Row], by: Sequence[str], measured: Sequence[str]
) -> list[Row]:
    """One row per value of the `by` columns, in order of appearance.

    Each measured column becomes its mean, and `<column>_se` its standard error; `seeds`
    counts what went in.
    """

    def key(row: Row) -> tuple[Any, ...]:
        return tuple(row[name] for name in by)

    order = list(dict.fromkeys(map(key, rows)))
    grouped = sorted(rows, key=lambda row: order.index(key(row)))
    table = []
    for values, group in itertools.groupby(grouped, key):
        members = list(group)
        out: Row = {**dict(zip(by, values, strict=True)), "seeds": len(members)}
        for name in measured:
            samples = [float(member[name]) for member in members]
            out[name] = statistics.fmean(samples)
            out[f"{name}_se"] = standard_error(samples)
        table.append(out)
    return table


def standard_error(samples: Sequence[float]) -> float:
    """Of the mean; NaN for a single sample, which tells nothing about the spread."""
    if len(samples) < 2:
        return math.nan
    return statistics.stdev(samples) / math.sqrt(len(samples))
