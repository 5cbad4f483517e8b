"""Bad input: every row of the table holds for each call it names."""

import inspect

import optax
import pytest

import jaxreg
from tests.support import ways
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


def makes_a_transformation(thing: object) -> bool:
    if not inspect.isfunction(thing):
        return False
    return "GradientTransformation" in str(inspect.signature(thing).return_annotation)


def test_every_transformation_of_the_catalogue_is_among_the_ways() -> None:
    makers = {
        name for name in jaxreg.__all__ if makes_a_transformation(getattr(jaxreg, name))
    }
    assert makers == set(ways.TRANSFORMS)


def test_the_ways_are_what_their_names_say() -> None:
    for name, make in ways.TRANSFORMS.items():
        assert isinstance(make(ways.penalty(name)), optax.GradientTransformation)
