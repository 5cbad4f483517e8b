"""One self-contained page from the results under a folder.

The page is built from `run.json` and `figure.png` alone, so it needs neither the
experiments' modules nor the machine that measured them. Styles and figures are inside
the file; it holds no script and asks nothing of the network.
"""

import base64
import dataclasses
import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from experiments.harness.answers import ANSWERS, OTHERS, SECTIONS, Answer
from experiments.harness.contract import CORRECTED, RULE, Row
from experiments.harness.files import replace

TITLE = "jaxreg experiments"
VERDICTS = ("holds with conditions", "holds", "false", "measured")
# Characters of a verdict in the table of all verdicts.
BRIEF = 200
STYLE = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclasses.dataclass(frozen=True)
class Result:
    """The `run.json` and `figure.png` of a finished experiment."""

    record: Row
    figure: bytes

    @property
    def name(self) -> str:
        return str(self.record["experiment"])


def write_report(root: Path) -> Path:
    """Writes `root/report.html` from every finished experiment under `root`."""
    report = root / "report.html"
    replace(report, render(load(root)).encode())
    return report


def load(root: Path) -> list[Result]:
    """Every finished experiment under `root`, by name."""
    return [
        Result(json.loads(path.read_text()), (path.parent / "figure.png").read_bytes())
        for path in sorted(root.glob("*/run.json"))
    ]


def columns(table: Sequence[Row]) -> list[str]:
    """The columns of a table, in the order they first appear."""
    return list(dict.fromkeys(key for row in table for key in row))


def show(value: Any) -> str:
    """A cell as text: four digits, yes and no, empty for None."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(show, value))
    return "" if value is None else str(value)


def text_table(table: Sequence[Row]) -> str:
    """The table as aligned plain text, numbers to the right."""
    keys = columns(table)
    numeric = _numeric(table)
    lines = [keys, *([show(row.get(key)) for key in keys] for row in table)]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            f"{cell:>{width}}" if key in numeric else f"{cell:<{width}}"
            for key, cell, width in zip(keys, line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def render(results: Sequence[Result]) -> str:
    """The whole page as text."""
    sections = in_sections(results)
    ordered = [result for part in sections.values() for result in part]
    body = "".join([_verdicts(sections), _answers(results), *map(_section, ordered)])
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{escape(TITLE)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<header>\n<h1>{escape(TITLE)}</h1>\n{_lead(results)}"
        f"{_contents(sections)}</header>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )


def _numeric(table: Sequence[Row]) -> set[str]:
    def number(value: Any) -> bool:
        return isinstance(value, (int, float)) and not isinstance(value, bool)

    return {
        key
        for key in columns(table)
        if all(number(row[key]) for row in table if row.get(key) is not None)
    }


def _lead(results: Sequence[Result]) -> str:
    count = "1 experiment" if len(results) == 1 else f"{len(results)} experiments"
    text = f"{count}, one question each, every number measured by the command below it."
    if any(result.record["quick"] for result in results):
        text += (
            " These are quick runs: they show that everything works, and are too small "
            "to be evidence."
        )
    return f'<p class="lead">{text}</p>\n'


def in_sections(results: Sequence[Result]) -> dict[str, list[Result]]:
    """The results by section, as `answers` orders them, without empty ones."""
    unlisted = {result.name: result for result in results}
    sections = {
        title: [unlisted.pop(name) for name in names if name in unlisted]
        for title, names in SECTIONS.items()
    }
    sections[OTHERS] = list(unlisted.values())
    return {title: part for title, part in sections.items() if part}


def _contents(sections: dict[str, list[Result]]) -> str:
    items = "".join(
        f"<li>{escape(title)}: {', '.join(_link(r.name) for r in part)}</li>\n"
        for title, part in sections.items()
    )
    return (
        '<nav aria-label="Contents">\n<h2>Contents</h2>\n<ol>\n'
        '<li><a href="#verdicts">All verdicts</a></li>\n'
        f'<li><a href="#answers">What to use when</a></li>\n{items}</ol>\n</nav>\n'
    )


def _answers(results: Sequence[Result]) -> str:
    said = {result.name: result.record for result in results}
    items = "".join(
        f"<dt>{_prose(answer.question)}</dt><dd>{_prose(answer.text)}"
        f"<p>{_ground(answer, said)}</p></dd>\n"
        for answer in ANSWERS
    )
    return (
        '<section id="answers">\n<h2>What to use when</h2>\n'
        f'<dl class="answers">\n{items}</dl>\n</section>\n'
    )


def _ground(answer: Answer, said: dict[str, Row]) -> str:
    """The experiments an answer rests on, and whether they still say what it needs."""
    ground = []
    for name, word in answer.rests_on.items():
        if name not in said:
            ground.append(f"{escape(name)} (not run)")
        elif said[name]["quick"] or verdict_word(said[name]["verdict"]) == word:
            ground.append(_link(name))
        else:
            ground.append(f"{_link(name)} (<strong>now says otherwise</strong>)")
    return f"Rests on {', '.join(ground)}."


def _verdicts(sections: dict[str, list[Result]]) -> str:
    body = "".join(
        f'<tbody>\n<tr><th colspan="3" scope="rowgroup">{escape(title)}</th></tr>\n'
        + "".join(
            f'<tr><th scope="row">{_link(result.name)}</th>'
            f"<td>{_prose(result.record['claim'])}</td>"
            f"<td>{_verdict(brief(result.record['verdict']))}</td></tr>\n"
            for result in part
        )
        + "</tbody>\n"
        for title, part in sections.items()
    )
    return (
        '<section id="verdicts">\n<h2>All verdicts</h2>\n<div class="card">'
        '<table class="verdicts">\n<thead><tr><th scope="col">Experiment</th>'
        '<th scope="col">Claim</th><th scope="col">Verdict</th></tr></thead>\n'
        f"{body}</table></div>\n</section>\n"
    )


def brief(verdict: str) -> str:
    """The first clauses of a verdict, up to about thirty words."""
    clauses = re.split(r"(?<=[.;]) ", verdict)
    text = clauses[0]
    for clause in clauses[1:]:
        if len(text) + len(clause) > BRIEF:
            return text.rstrip(";.") + "."
        text = f"{text} {clause}"
    return text


def verdict_word(verdict: str) -> str:
    """The beginning of a verdict: one of `VERDICTS`."""
    return next(word for word in VERDICTS if verdict.startswith(word))


def _link(name: str) -> str:
    return f'<a href="#{escape(name)}">{escape(name)}</a>'


def _prose(text: str) -> str:
    """Escaped text, with code for backticks."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _verdict(text: str) -> str:
    """The verdict with its first words as a coloured label."""
    word = verdict_word(text)
    rest = text[len(word) :].lstrip(" :;,.-")
    return (
        f'<strong class="label {word.replace(" ", "-")}">{word}</strong> {_prose(rest)}'
    )


def _section(result: Result) -> str:
    record = result.record
    name = escape(result.name)
    image = base64.b64encode(result.figure).decode()
    said = "".join(
        f"<dt>{label}</dt><dd>{_prose(record[label.lower()])}</dd>\n"
        for label in ("Question", "Claim", "Expected", RULE, CORRECTED)
        if label.lower() in record
    )
    return (
        f'<section id="{name}">\n<h2>{name}</h2>\n<dl class="said">\n{said}'
        f"<dt>Verdict</dt><dd>{_verdict(record['verdict'])}</dd>\n</dl>\n"
        f'<figure><img src="data:image/png;base64,{image}" alt="Figure of {name}">'
        f"</figure>\n{_table(record['table'])}"
        f'<pre class="scroll" tabindex="0">{escape(record["command"])}</pre>\n'
        f"{_circumstances(record)}</section>\n"
    )


def _table(table: Sequence[Row]) -> str:
    keys, numeric = columns(table), _numeric(table)

    def cells(tag: str, texts: Sequence[str]) -> str:
        side = {key: ' class="number"' if key in numeric else "" for key in keys}
        return "".join(
            f"<{tag}{side[key]}>{escape(text)}</{tag}>"
            for key, text in zip(keys, texts, strict=True)
        )

    head = cells("th", [key.replace("_", " ") for key in keys])
    rows = "".join(
        f"<tr>{cells('td', [show(row.get(key)) for key in keys])}</tr>\n"
        for row in table
    )
    return (
        '<div class="card scroll" tabindex="0"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n"
    )


def _circumstances(record: Row) -> str:
    commit = show(record["commit"]) or "not recorded"
    if record["dirty"] not in (False, None):
        commit += " with uncommitted changes"
    versions = ", ".join(f"{k} {show(v)}" for k, v in record["versions"].items())
    config = ", ".join(f"{k} = {json.dumps(v)}" for k, v in record["config"].items())
    facts = {
        "Config": config,
        "Cells": f"{record['cells']}, measured in {record['seconds']:.1f} seconds",
        "Stated cost": record["cost"],
        "Device": f"{show(record['device'])}, {show(record['cpu_count'])} CPU cores",
        "Versions": versions,
        "Commit": commit,
        "Written": record["written"],
    }
    items = "".join(f"<dt>{k}</dt><dd>{escape(v)}</dd>\n" for k, v in facts.items())
    return (
        "<details>\n<summary>How it was run</summary>\n"
        f"<dl>\n{items}</dl>\n</details>\n"
    )
