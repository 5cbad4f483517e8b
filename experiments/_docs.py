"""Puts the tables of `experiments/results` into README.md and docs/.

A document names the experiment between two comments, perhaps a value that rows must
have and the columns to show (`results: ways kind=way way,zeros`). What stands between
is the table of its last run: `python -m experiments._docs` writes it, a test compares.
"""

from __future__ import annotations

import json
import pathlib
import re

import jaxreg
from experiments._report import columns, show

ROOT = pathlib.Path(__file__).parent.parent
_BLOCK = re.compile(
    r"(<!-- results: (\w+)(?: (\w+)=(\w+))?((?: [\w,]+)?) -->\n).*?(<!-- end -->)",
    flags=re.DOTALL,
)


def documents() -> list[pathlib.Path]:
    """The documents that may hold tables."""
    return [
        ROOT / "README.md",
        ROOT / "BUILD_NOTES.md",
        *sorted(ROOT.glob("docs/*.md")),
    ]


def filled(text: str) -> str:
    """The text with every table as the results have it."""
    return _BLOCK.sub(_fill, text)


def _fill(match: re.Match[str]) -> str:
    start, name, key, value, chosen, end = match.groups()
    path = ROOT / "experiments" / "results" / name / "run.json"
    rows = json.loads(path.read_text())["table"]
    table = [row for row in rows if key is None or str(row[key]) == value]
    header = chosen.strip().split(",") if chosen else columns(table)
    shown = ({column: show(row.get(column)) for column in header} for row in table)
    return f"{start}{jaxreg.Table(tuple(shown)).markdown()}\n{end}"


if __name__ == "__main__":
    for document in documents():
        document.write_text(filled(document.read_text()))
