"""One row per penalty: an instance, what is true of it, and a slow reference.

The laws in test_laws*.py hold for every row; the facts of a row decide which apply. The
references are the textbook formulas in NumPy float64 and do not pass through jaxreg.
A new penalty is tested by adding its row to a file of tests/rows.
"""

import importlib
import pkgutil

from tests import rows
from tests.row import Leaves, Row, Shapes, by_rows, cast

__all__ = ["ROWS", "Leaves", "Row", "Shapes", "by_rows", "cast"]

ROWS: list[Row] = [
    row
    for found in sorted(module.name for module in pkgutil.iter_modules(rows.__path__))
    for row in importlib.import_module(f"tests.rows.{found}").ROWS
]
