"""Bad input: every row of the table holds for each call it names."""

import pytest

from tests.system.bad_input import page
from tests.system.bad_input.inputs import Row

ROWS = [
    pytest.param(
        row,
        id=row.given.replace("`", ""),
        marks=[pytest.mark.slow] if row.is_slow else [],
    )
    for rows in page.SECTIONS.values()
    for row in rows
]


@pytest.mark.parametrize("row", ROWS)
def test_bad_input_has_the_outcome_of_its_row(row: Row) -> None:
    for way in row.ways:
        row.check(way)


def test_the_page_is_the_table() -> None:
    written = page.PAGE.read_text()
    assert written == page.page(), "run: python -m tests.system.bad_input.page"
