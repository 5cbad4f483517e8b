"""Every promise of the documents names a test that is there."""

import ast
import re

import pytest

from experiments.harness.docs import ROOT

ROWS = re.findall(
    r"^\| (.+?) \| .+? \| `(.+?)::(.+?)` \|$",
    (ROOT / "docs" / "promises.md").read_text(),
    re.MULTILINE,
)


def test_every_line_of_the_table_is_read() -> None:
    text = (ROOT / "docs" / "promises.md").read_text()
    assert len(ROWS) == sum(line.startswith("| ") for line in text.splitlines()) - 2


@pytest.mark.parametrize(("promise", "file", "name"), ROWS)
def test_the_test_of_a_promise_exists(promise: str, file: str, name: str) -> None:
    nodes = ast.parse((ROOT / file).read_text()).body
    assert name in {n.name for n in nodes if isinstance(n, ast.FunctionDef)}, promise
