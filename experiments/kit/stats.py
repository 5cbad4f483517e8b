"""Rows of an experiment: choosing them, and means over seeds with standard errors."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.harness.contract import Row


def select(rows: Sequence[Row], **values: Any) -> list[Row]:
    """The rows with these values in these columns."""
    return [row for row in rows if all(row[k] == v for k, v in values.items())]


def alike(rows: Sequence[Row], row: Row, by: Sequence[str]) -> list[Row]:
    """The rows that agree with `row` in the columns `by`."""
    return select(rows, **{name: row[name] for name in by})


def over_seeds(
    rows: Sequence[Row], by: Sequence[str], measured: Sequence[str]
) -> list[Row]:
    """Means of the rows that agree in the columns `by`, in order of appearance.

    Each measured column becomes its mean, and `<column>_se` its standard error; `seeds`
    counts the rows of a mean.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in by), []).append(row)
    table = []
    for values, group in groups.items():
        mean: Row = {**dict(zip(by, values, strict=True)), "seeds": len(group)}
        for name in measured:
            samples = [float(row[name]) for row in group]
            mean[name] = statistics.fmean(samples)
            mean[f"{name}_se"] = standard_error(samples)
        table.append(mean)
    return table


def largest(rows: Sequence[Row], column: str) -> Any:
    """The largest number of a column; None if no row has one."""
    return max((r[column] for r in rows if r[column] is not None), default=None)


def standard_error(samples: Sequence[float]) -> float:
    """The standard error of the mean; NaN for a single sample."""
    if len(samples) < 2:
        return math.nan
    return statistics.stdev(samples) / math.sqrt(len(samples))


def selection_stability(chosen: np.ndarray) -> float:
    """The similarity of sets beyond chance: 1 if equal, 0 if random.

    A row of `chosen` is a set, as a mask of the candidates (Nogueira, Sechidis and
    Brown 2018, On the stability of feature selection algorithms, eq. 4).
    """
    share = np.mean(chosen)
    variance = np.mean(np.var(chosen, axis=0, ddof=1))
    return float(1 - variance / (share * (1 - share)))
