"""Bad input: every row of the table holds for each call it names."""

import inspect

import pytest

import jaxreg
from tests.system.bad_input import arguments, methods, page
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


def test_a_bad_argument_of_each_kind_raises_in_one_call() -> None:
    for row in arguments.ARGUMENT_ROWS:
        row.check(row.ways[0])


def test_bad_arguments_of_the_methods_of_one_penalty_raise() -> None:
    for row in methods.METHOD_ROWS:
        row.check("L1")


def test_every_argument_has_a_kind() -> None:
    named = {name for kind in arguments.KINDS for name in kind.arguments}
    known = named | arguments.SWITCHES | arguments.OPTAX
    missing = [
        label
        for label in arguments.ARGUMENTS
        if not known & set(arguments.names_of(label))
    ]
    hint = "name it in a kind of KINDS, tests/system/bad_input/arguments.py"
    assert not missing, f"arguments without a row of bad input: {missing}; {hint}"
    names = {
        name for label in arguments.ARGUMENTS for name in arguments.names_of(label)
    }
    assert not named - names, f"kinds name what no callable has: {named - names}"


def test_every_method_argument_has_a_row() -> None:
    known = set(methods.good(methods.LAWS["L1"]))
    found = {
        argument
        for law in methods.LAWS.values()
        for method in methods.METHODS
        for argument in methods.arguments_of(law.penalty, method)
    }
    hint = "give it a good value and rows, tests/system/bad_input/methods.py"
    assert found <= known, f"arguments of methods: {found - known}; {hint}"


def test_every_penalty_class_is_in_the_table_of_methods() -> None:
    classes = {
        name
        for name in jaxreg.__all__
        if inspect.isclass(found := getattr(jaxreg, name))
        and issubclass(found, jaxreg.Penalty)
        and not inspect.isabstract(found)
    }
    assert classes <= {type(law.penalty).__name__ for law in methods.LAWS.values()}


@pytest.mark.parametrize("switch", sorted(arguments.SWITCHES))
def test_a_switch_is_on_where_python_takes_it_for_true(switch: str) -> None:
    for label in arguments.ARGUMENTS:
        if label.rpartition(".")[2] == switch:
            on, off = (arguments.called(label, content) for content in ("no", ""))
            assert type(on) is type(off)
