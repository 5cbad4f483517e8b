"""One row per penalty: an instance, what is true of it, and a slow reference.

The laws in test_laws*.py hold for every row; the facts of a row decide which apply. The
references are the textbook formulas in NumPy float64 and do not pass through jaxreg.
A new penalty is tested by adding its row to a file of tests/rows.
"""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import pytest

from tests import rows
from tests.row import Row

ROWS: list[Row] = [
    row
    for found in sorted(module.name for module in pkgutil.iter_modules(rows.__path__))
    for row in importlib.import_module(f"tests.rows.{found}").ROWS
]


# One of each kind of prox and of lift; the laws of all others are CI's part.
IN_DEFAULT_RUN = {
    "L1",
    "ElasticNet",
    "GroupLasso over 0",
    "by_path",
    "MCP",
    "L0",
    "Lp",
    "grouped MCP",
    "SparseGroupLasso",
    "Hierarchical",
    "LInf over 0",
    "SLOPE",
    "TotalVariation",
    "NuclearNorm split at -1",
    "HoyerSquare",
    "L1Ball over 0",
    "L2Ball",
    "TopK over the tree",
    "NM",
    "UnitNorm",
    "weighted L1",
    "nonnegative L1",
    "anchored ElasticNet",
    "envelope of L1",
}


def rows_where(is_wanted: Callable[[Row], Any]) -> Any:
    """Parametrizes a law over the rows of which it is true; CI alone runs slow ones."""
    wanted = [
        pytest.param(row, marks=_marks(row), id=row.name)
        for row in ROWS
        if is_wanted(row)
    ]
    return pytest.mark.parametrize("row", wanted)


def _marks(row: Row) -> list[Any]:
    # In one worker, which then compiles each function of the row once.
    together = pytest.mark.xdist_group(row.name)
    return [together] if row.name in IN_DEFAULT_RUN else [together, pytest.mark.slow]


every_row = rows_where(lambda row: True)
prox_rows = rows_where(lambda row: row.has_prox)
convex_rows = rows_where(lambda row: row.is_convex and row.has_prox)
varying_rows = rows_where(lambda row: row.varying_step)
distance_rows = rows_where(
    lambda row: row.has_prox and row.stationarity_kind == "distance"
)
penalty_rows = rows_where(lambda row: not row.is_constraint)
constraint_rows = rows_where(lambda row: row.is_constraint)
strength_rows = rows_where(lambda row: row.has_strength)
