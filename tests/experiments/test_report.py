"""The report: one page, self-contained, escaped, whole."""

import base64
import json
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from experiments.harness.answers import OTHERS
from experiments.harness.report import (
    Result,
    brief,
    in_sections,
    render,
    show,
    text_table,
    write_report,
)

# One white pixel.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGP4DwABAQEAG7buVgAAAABJRU5E"
    "rkJggg=="
)
HOSTILE = "<script>alert('x')</script> & \"quotes\" http://example.org"


def record(name: str = "sparsity", **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "experiment": name,
        "quick": False,
        "question": "Does L1 leave zeros?",
        "claim": "It does, under any optimizer.",
        "expected": "More than half.",
        "cost": "one minute",
        "command": f"python -m experiments {name} --epochs 3",
        "verdict": "holds: 61 % of the weights are exactly 0.",
        "table": [
            {"method": "L1", "mean_zeros": 0.6123456, "seeds": 5, "exact": True},
            {"method": "decay", "mean_zeros": float("nan"), "seeds": 5, "note": "none"},
        ],
        "config": {"epochs": 3, "strengths": [0.0001, 0.123456789]},
        "cells": 10,
        "seconds": 61.25,
        "commit": "0123abcd",
        "dirty": True,
        "device": "cpu",
        "cpu_count": 2,
        "versions": {"python": "3.11.4", "jax": ["0.10.1", "0.10.2"]},
        "written": "2030-01-02T03:04:05+00:00",
    }
    return values | changes


def page(*records: dict[str, Any]) -> str:
    return render([Result(values, PNG) for values in records])


def texts_of(html: str, tag: str) -> list[str]:
    found = re.findall(rf"<{tag}(?: [^>]*)?>(.*?)</{tag}>", html, flags=re.DOTALL)
    return [unescape(re.sub(r"<[^>]*>", "", text)) for text in found]


class Tags(HTMLParser):
    """Collects attributes, and fails on a tag closed out of order."""

    VOID = ("meta", "img")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    tags.close()
    return tags


def test_every_table_cell_and_heading_is_on_the_page() -> None:
    html = page(record())
    cells = texts_of(html, "td")
    for text in ("L1", "0.6123", "5", "yes", "decay", "nan", "none"):
        assert text in cells
    headings = texts_of(html, "th")
    for text in ("method", "mean zeros", "seeds", "exact", "note"):
        assert text in headings


def test_every_statement_and_circumstance_is_on_the_page() -> None:
    html = unescape(page(record()))
    for text in (
        "Does L1 leave zeros?",
        "It does, under any optimizer.",
        "More than half.",
        "61 % of the weights are exactly 0.",
        "python -m experiments sparsity --epochs 3",
        "epochs = 3, strengths = [0.0001, 0.123456789]",
        "10, measured in 61.2 seconds",
        "cpu, 2 CPU cores",
        "python 3.11.4, jax 0.10.1, 0.10.2",
        "0123abcd with uncommitted changes",
        "2030-01-02T03:04:05+00:00",
    ):
        assert text in html


@pytest.mark.parametrize(
    "field", ["question", "claim", "expected", "command", "cost", "device"]
)
def test_text_is_escaped(field: str) -> None:
    html = page(record(**{field: HOSTILE}))
    assert "<script" not in html
    assert HOSTILE in unescape(html)


def test_table_verdict_config_and_name_are_escaped() -> None:
    html = page(
        record(
            name="a<b>",
            table=[{"<i>key</i>": HOSTILE}],
            verdict=f"false: {HOSTILE}",
            config={"<u>": HOSTILE},
        )
    )
    for tag in ("<script", "<i>", "<u>", "<b>"):
        assert tag not in html
    assert "<i>key</i>" in texts_of(html, "th")
    assert HOSTILE in texts_of(html, "td")


def test_links_stay_on_the_page_and_images_are_inside_it() -> None:
    tags = parsed(page(record("one"), record("two")))
    targets = {value for _, name, value in tags.attributes if name == "id"}
    links = [value for tag, name, value in tags.attributes if name == "href"]
    assert {"#one", "#two", "#verdicts", "#answers"} == set(links)
    assert {link.removeprefix("#") for link in links} <= targets
    images = [value for _, name, value in tags.attributes if name == "src"]
    assert len(images) == 2
    for image in images:
        kind, _, data = image.partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data) == PNG


def test_the_page_has_no_script_and_loads_no_style() -> None:
    html = page(record())
    assert not re.search(r"<script|<link|@import|url\(", html)


def test_tags_are_closed_in_order() -> None:
    assert parsed(page(record("one"), record("two"))).open == []


def test_the_page_suits_phones_and_dark_mode() -> None:
    html = page(record())
    assert 'name="viewport" content="width=device-width' in html
    assert "prefers-color-scheme: dark" in html
    assert ".scroll { overflow-x: auto; }" in html
    assert '<div class="card scroll" tabindex="0"><table>' in html


def test_the_verdict_table_comes_before_the_experiments() -> None:
    html = page(record("one"), record("two", verdict="false: nothing became 0."))
    places = ["<nav", 'id="verdicts"', 'id="answers"', 'id="one"']
    assert [html.index(place) for place in places] == sorted(map(html.index, places))
    assert html.count("nothing became 0.") == 2
    assert html.count('<strong class="label false">false</strong>') == 2


def test_a_long_verdict_is_shortened_by_whole_clauses() -> None:
    assert brief("false: short.") == "false: short."
    clauses = [f"measured: {'a' * 90}", "b" * 90, "c" * 90, "d."]
    assert brief("; ".join(clauses)) == "; ".join(clauses[:2]) + "."
    html = page(record(verdict="; ".join(clauses)))
    assert html.count("a" * 90) == 2
    assert html.count("c" * 90) == 1


def test_experiments_come_by_section_and_unknown_ones_last() -> None:
    sections = in_sections(
        [Result(record(name), PNG) for name in ("a_new_one", "cost", "outliers")]
    )
    names = [[part.name for part in results] for results in sections.values()]
    assert names == [["outliers"], ["cost"], ["a_new_one"]]
    assert list(sections)[-1] == OTHERS


def test_an_answer_whose_ground_is_gone_says_so() -> None:
    ground = "now says otherwise"
    assert ground not in page(record("outliers", verdict="false: the loss decides."))
    assert ground in page(record("outliers", verdict="holds: it is robust."))
    assert ground not in page(record("outliers", verdict="holds: it.", quick=True))
    assert "outliers (not run)" in page(record("one"))


def test_what_came_out_otherwise_than_expected_stands_below() -> None:
    assert "Corrected" not in page(record())
    html = page(record(corrected="A third, since zeros cost."))
    assert html.index("More than half.") < html.index("A third, since zeros cost.")


def test_words_in_backticks_are_code() -> None:
    assert "<code>L1&lt;2</code>" in page(record(claim="with `L1<2`"))


@pytest.mark.parametrize(
    ("verdict", "css", "label"),
    [
        ("holds: yes.", "holds", "holds"),
        ("holds with conditions: small", "holds-with-conditions", "holds with condit"),
        ("measured: 3 ms.", "measured", "measured"),
    ],
)
def test_the_verdict_label_is_its_first_words(
    verdict: str, css: str, label: str
) -> None:
    assert f'<strong class="label {css}">{label}' in page(record(verdict=verdict))


def test_quick_results_are_called_no_evidence() -> None:
    assert "too small to be evidence" in page(record(quick=True))
    assert "too small to be evidence" not in page(record())


def test_the_report_gathers_every_finished_result_under_the_root(
    tmp_path: Path,
) -> None:
    for name in ("two", "one", "unfinished"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "figure.png").write_bytes(PNG)
        if name != "unfinished":
            (tmp_path / name / "run.json").write_text(json.dumps(record(name)))
    html = write_report(tmp_path).read_text()
    assert html.index('id="one"') < html.index('id="two"')
    assert "unfinished" not in html


def test_text_table_aligns_numbers_right_and_words_left() -> None:
    table = [{"method": "L1", "loss": 10.0}, {"method": "longer", "zeros": 3}]
    assert text_table(table).splitlines() == [
        "method  loss  zeros",
        "L1        10",
        "longer            3",
    ]


def test_values_are_shown_for_people() -> None:
    assert [show(value) for value in (True, None, 1 / 3, 7, "x", [1e-9, False])] == [
        "yes",
        "",
        "0.3333",
        "7",
        "x",
        "1e-09, no",
    ]
