"""One row per penalty: an instance, what is true of it, and a slow reference.

The laws in test_laws*.py hold for every row; the facts of a row decide which apply. The
references are the textbook formulas in NumPy float64 and do not pass through jaxreg.
A new penalty is tested by adding its row to a file of tests/laws/rows.
"""

import importlib
import pkgutil
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from tests.laws import rows
from tests.laws.row import Row

ROWS: list[Row] = [
    row
    for found in sorted(module.name for module in pkgutil.iter_modules(rows.__path__))
    for row in importlib.import_module(f"tests.laws.rows.{found}").ROWS
]


# All laws on all rows take a quarter of an hour on 2 cores, most of it compiling: the
# default run has one row of each kind of prox and of lift, CI has them all.
IN_DEFAULT_RUN = {
    "L1",
    "GroupLasso over 0",
    "by_path",
    "MCP",
    "L0",
    "NM",
    "weighted L1",
}


def rows_where(is_wanted: Callable[[Row], Any]) -> Any:
    """Parametrizes a law over the rows of which it is true; CI alone runs slow ones."""
    wanted = [
        pytest.param(row, marks=_marks(row), id=row.name)
        for row in ROWS
        if is_wanted(row)
    ]
    return pytest.mark.parametrize("row", wanted)


def rows_and_cases(
    argument: str, cases: Iterable[Any], is_wanted: Callable[[Row, Any], Any]
) -> Any:
    """Parametrizes a law over the pairs of a row and a case of which it is true."""
    wanted = [
        pytest.param(row, case, marks=_marks(row), id=f"{row.name}-{case}")
        for row in ROWS
        for case in cases
        if is_wanted(row, case)
    ]
    return pytest.mark.parametrize(("row", argument), wanted)


def _marks(row: Row) -> list[Any]:
    # In one worker, which then compiles each function of the row once.
    together = pytest.mark.xdist_group(row.name)
    return [together] if row.name in IN_DEFAULT_RUN else [together, pytest.mark.slow]


def _kind(row: Row) -> tuple[type, ...]:
    """The classes of a penalty and of what it is made of."""
    inner = getattr(row.penalty, "penalty", None)
    return type(row.penalty), type(inner)


_FIRST = {_kind(row): row.name for row in reversed(ROWS)}


def is_first_of_its_kind(row: Row) -> bool:
    return _FIRST[_kind(row)] == row.name


every_row = rows_where(lambda row: True)
# What JAX makes of a class does not depend on its numbers or axes.
every_kind = rows_where(lambda row: is_first_of_its_kind(row))
prox_rows = rows_where(lambda row: row.has_prox)
convex_rows = rows_where(lambda row: row.is_convex and row.has_prox)
varying_rows = rows_where(lambda row: row.varying_step)
distance_rows = rows_where(
    lambda row: row.has_prox and row.stationarity_kind == "distance"
)
penalty_rows = rows_where(lambda row: not row.is_constraint)
constraint_rows = rows_where(lambda row: row.is_constraint)
strength_rows = rows_where(lambda row: row.has_strength)
