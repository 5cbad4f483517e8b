"""One self-contained page from the results under a folder.

The page is built from `run.json` and `figure.png` alone, so it needs neither the
experiments' modules nor the machine that measured them. Styles and figures are inside
the file; it holds no script and asks nothing of the network.
"""

import base64
import dataclasses
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from ._experiment import Row
from ._style import STYLE

TITLE = "jaxreg experiments"
VERDICTS = ("holds with conditions", "holds", "false", "measured")
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@dataclasses.dataclass(frozen=True)
class Result:
    """What one finished experiment left behind: `run.json` and `figure.png`."""

    record: Row
    figure: bytes

    @property
    def name(self) -> str:
        return str(self.record["experiment"])


def write_report(root: Path) -> Path:
    """Writes `root/report.html` from every finished experiment under `root`."""
    results = [
        Result(json.loads(path.read_text()), (path.parent / "figure.png").read_bytes())
        for path in sorted(root.glob("*/run.json"))
    ]
    report = root / "report.html"
    report.write_text(render(results), encoding="utf-8")
    return report


def columns(table: Sequence[Row]) -> list[str]:
    """The columns of a table, in the order they first appear."""
    return list(dict.fromkeys(key for row in table for key in row))


def show(value: Any) -> str:
    """A cell as people read it: four digits, yes and no, nothing for None."""
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
    body = "".join([_verdicts(results), *map(_section, results)])
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{escape(TITLE)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<header>\n<h1>{escape(TITLE)}</h1>\n{_lead(results)}"
        f"{_contents(results)}</header>\n<main>\n{body}</main>\n</body>\n</html>\n"
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


def _contents(results: Sequence[Result]) -> str:
    items = "".join(
        f'<li><a href="#{escape(result.name)}">{escape(result.name)}</a> '
        f"<span>{escape(result.record['question'])}</span></li>\n"
        for result in results
    )
    return (
        '<nav aria-label="Contents">\n<h2>Contents</h2>\n<ol>\n'
        f'<li><a href="#verdicts">All verdicts</a></li>\n{items}</ol>\n</nav>\n'
    )


def _verdicts(results: Sequence[Result]) -> str:
    rows = "".join(
        f'<tr><th scope="row"><a href="#{escape(result.name)}">{escape(result.name)}'
        f"</a></th><td>{escape(result.record['claim'])}</td>"
        f"<td>{_verdict(result.record['verdict'])}</td></tr>\n"
        for result in results
    )
    return (
        '<section id="verdicts">\n<h2>Verdicts</h2>\n<div class="card">'
        '<table class="verdicts">\n<thead><tr><th scope="col">Experiment</th>'
        '<th scope="col">Claim</th><th scope="col">Verdict</th></tr></thead>\n'
        f"<tbody>\n{rows}</tbody>\n</table></div>\n</section>\n"
    )


def _verdict(text: str) -> str:
    """The verdict with its first words as a coloured label."""
    word = next(word for word in VERDICTS if text.startswith(word))
    rest = text[len(word) :].lstrip(" :;,.-")
    return (
        f'<strong class="label {word.replace(" ", "-")}">{word}</strong> {escape(rest)}'
    )


def _section(result: Result) -> str:
    record = result.record
    name = escape(result.name)
    image = base64.b64encode(result.figure).decode()
    said = "".join(
        f"<dt>{label}</dt><dd>{escape(record[label.lower()])}</dd>\n"
        for label in ("Question", "Claim", "Expected")
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
