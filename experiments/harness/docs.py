"""Puts the tables of `experiments/results` into README.md and docs/.

A document names the experiment between two comments, perhaps with a value that rows
must have and the columns to show (`results: ways kind=way way,zeros`). Between them
stands the table of its last run: `python -m experiments.harness.docs` writes it, a test
compares. `verdicts` is the table of all verdicts, or of the experiments whose names
follow; `answers` is the advice that follows from the results; `names` has every public
name of jaxreg with the first sentence of its docstring. Links to the repository get the
address that pyproject.toml has.
"""

import inspect
import json
import pathlib
import re
import textwrap
import tomllib
import types

import jaxreg
from experiments.harness.answers import ANSWERS
from experiments.harness.report import brief, columns, in_sections, load, show

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results"
_BLOCK = re.compile(
    r"(<!-- results: (\w+)(?: (\w+)=([\w.-]+))?((?: [\w,-]+)?) -->\n).*?(<!-- end -->)",
    flags=re.DOTALL,
)
_ROOMS = {
    "penalties": "Penalties",
    "constraints": "Constraints",
    "calculus": "Penalties made from another",
    "rules": "Which leaves",
    "transforms": "Ways to apply a penalty",
    "solve": "Solving, and `jaxreg.solve`: linear models",
    "reports": "Reading",
    "compaction": "Smaller models",
    "model_selection": "`jaxreg.model_selection`: choosing the strength",
    "preconditioners": "`jaxreg.preconditioners`: for `proximal`",
    "_core": "Blocks, and penalties of your own",
}
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"][
    "Repository"
]
_ADDRESS = re.compile(
    r"(?<=\]\()https://[^)]+(?=/(?:blob|raw)/main/)"
    r"|(?<=pip install git\+)https://\S+"
    r"|(?<=^repository-code: )https://\S+",
    re.MULTILINE,
)
_PAGE_PART = re.compile(
    r"(<!-- (verdicts|answers|names)(?:: ([^\n]+))? -->\n).*?(<!-- end -->)", re.DOTALL
)


def documents() -> list[pathlib.Path]:
    """The documents that may hold tables."""
    return [
        *sorted(ROOT.glob("*.md")),
        *sorted(ROOT.glob("docs/**/*.md")),
    ]


def filled(text: str) -> str:
    """The text with every table as the results have it."""
    text = _ADDRESS.sub(REPOSITORY, text)
    return _PAGE_PART.sub(_fill_part, _BLOCK.sub(_fill, text))


def _fill_part(match: re.Match[str]) -> str:
    start, name, words, end = match.groups()
    parts = {"verdicts": lambda: _verdicts(words), "answers": _answers}
    return f"{start}{(parts | {'names': _names})[name]()}\n{end}"


def _verdicts(names: str | None) -> str:
    """A table of experiments with claim and verdict, ordered as in the report."""
    chosen = names.split(", ") if names else None
    rows = [
        {
            "experiment": f"`{result.name}`",
            "claim": result.record["claim"],
            "verdict": brief(result.record["verdict"]),
        }
        for part in in_sections(load(RESULTS)).values()
        for result in part
        if chosen is None or result.name in chosen
    ]
    assert chosen is None or len(rows) == len(chosen), f"no results of some of {names}"
    return jaxreg.states.Table(tuple(rows)).markdown()


def _answers() -> str:
    """Each question as a heading, its answer, and the experiments it rests on."""
    return "\n".join(
        f"## {answer.question}\n\n"
        + textwrap.fill(" ".join(answer.text.split()), 88, break_on_hyphens=False)
        + f"\n\nRests on {', '.join(f'`{name}`' for name in answer.rests_on)}.\n"
        for answer in ANSWERS
    )


def _names() -> str:
    """A table of the public names per room of jaxreg and per public submodule."""
    rooms: dict[str, list[dict[str, str]]] = {}
    submodules = (
        jaxreg.model_selection,
        jaxreg.preconditioners,
        jaxreg.reports,
        jaxreg.solve,
    )
    for module in (jaxreg, *submodules):
        for name in sorted(set(module.__all__) - set(jaxreg.states.__all__)):
            public = getattr(module, name)
            if isinstance(public, types.ModuleType):
                continue
            room = public.__module__.split(".")[1]
            line = " ".join((inspect.getdoc(public) or "").split("\n\n")[0].split())
            called = name if module is jaxreg else f"{room}.{name}"
            rooms.setdefault(room, []).append(
                {
                    "name": f"[`{called}`]({room.strip('_')}.md#jaxreg.{called})",
                    "what it is": line,
                }
            )
    tables = [
        f"## {title}\n\n{jaxreg.states.Table(tuple(rooms.pop(room))).markdown()}\n"
        for room, title in _ROOMS.items()
    ]
    assert not rooms, f"rooms without a title: {list(rooms)}"
    return "\n".join(tables)


def _fill(match: re.Match[str]) -> str:
    start, name, key, value, chosen, end = match.groups()
    path = RESULTS / name / "run.json"
    rows = json.loads(path.read_text())["table"]
    table = [row for row in rows if key is None or str(row[key]) == value]
    header = chosen.strip().split(",") if chosen else columns(table)
    shown = ({column: show(row.get(column)) for column in header} for row in table)
    return f"{start}{jaxreg.states.Table(tuple(shown)).markdown()}\n{end}"


if __name__ == "__main__":
    for document in [*documents(), ROOT / "CITATION.cff"]:
        document.write_text(filled(document.read_text()))
