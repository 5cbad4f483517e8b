"""Runs keep finished rows, resume, reject other configs and write their results."""

import csv
import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import jax
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from experiments.__main__ import main
from experiments.harness.contract import RunError
from experiments.harness.runner import run

ROOT = Path(__file__).parents[2]


def measured_cells(toy: ModuleType) -> list[str]:
    return toy.CALLS.read_text().splitlines() if toy.CALLS.exists() else []


def run_toy(toy: ModuleType, directory: Path, **changes: object) -> str:
    stream = io.StringIO()
    config = dataclasses.replace(toy.Config(), **changes)
    run(toy, config, directory, quick=False, stream=stream)
    return stream.getvalue()


def rows_without(directory: Path, lines: int) -> Path:
    """Forgets the last finished rows, as a run stopped earlier would not have them."""
    path = directory / "rows.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-lines]))
    return path


def test_outputs_hold_the_summarised_numbers(toy: ModuleType, tmp_path: Path) -> None:
    run_toy(toy, tmp_path / "out", scale=2.0)
    with (tmp_path / "out" / "table.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert table == [
        {"power": "1.0", "mean": "2.0", "ceiling": "inf"},
        {"power": "2.0", "mean": str(10 / 3), "ceiling": "inf"},
    ]
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["table"][1] == {"power": 2.0, "mean": 10 / 3, "ceiling": float("inf")}
    assert record["verdict"] == "holds: 6 rows"
    assert record["cells"] == 6
    assert record["config"]["powers"] == [1.0, 2.0]
    assert record["command"] == "python -m experiments toy --scale 2.0"
    assert record["claim"] == "The mean square of <three> seeds is above zero."
    assert record["versions"]["jax"] and record["versions"]["python"]
    assert imread(tmp_path / "out" / "figure.png").std() > 0


def test_recorded_seconds_sum_over_the_cells_of_all_runs(
    toy: ModuleType, tmp_path: Path
) -> None:
    run_toy(toy, tmp_path)
    path = tmp_path / "rows.jsonl"
    path.write_text(re.sub(r'"seconds": [^,]+', '"seconds": 100.0', path.read_text()))
    rows_without(tmp_path, 2)
    run_toy(toy, tmp_path)
    assert 400 <= json.loads((tmp_path / "run.json").read_text())["seconds"] < 402


def test_a_killed_run_goes_on_without_redoing_finished_cells(
    toy: ModuleType, toys: ModuleType, tmp_path: Path
) -> None:
    script = (
        "import sys, toys; from experiments.__main__ import main; "
        "sys.exit(main(sys.argv[1:], toys))"
    )
    command = [sys.executable, "-c", script, "toy", "--out", str(tmp_path / "out")]
    paths = os.pathsep.join([str(ROOT), str(tmp_path)])
    environment = {**os.environ, "PYTHONPATH": paths, "TOY_SECONDS": "0.4"}
    rows = tmp_path / "out" / "toy" / "rows.jsonl"
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as job:
        deadline = time.monotonic() + 60
        while not rows.exists() or rows.read_text().count("\n") < 3:
            assert job.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        job.send_signal(signal.SIGKILL)
    finished = rows.read_text().count("\n") - 1
    assert 2 <= finished < 6
    assert not (tmp_path / "out" / "report.html").exists()
    started = len(measured_cells(toy))

    assert main(["toy", "--out", str(tmp_path / "out")], toys) == 0
    # The cell that was being measured may have been called without being written.
    assert len(measured_cells(toy)) - started == 6 - finished
    assert sorted(set(measured_cells(toy))) == [
        f"{power} {seed}" for power in (1.0, 2.0) for seed in range(3)
    ]
    assert (tmp_path / "out" / "report.html").exists()


def test_rows_are_the_same_measured_or_loaded(toy: ModuleType, tmp_path: Path) -> None:
    run_toy(toy, tmp_path / "out")
    table = (tmp_path / "out" / "table.csv").read_bytes()
    rows_without(tmp_path / "out", 3)
    run_toy(toy, tmp_path / "out")
    assert (tmp_path / "out" / "table.csv").read_bytes() == table


def test_a_torn_last_line_is_measured_again(toy: ModuleType, tmp_path: Path) -> None:
    run_toy(toy, tmp_path / "out")
    path = tmp_path / "out" / "rows.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    toy.CALLS.unlink()
    run_toy(toy, tmp_path / "out")
    assert measured_cells(toy) == ["2.0 2"]
    assert path.read_text().count("\n") == whole.decode().count("\n")
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_torn_header_starts_the_file_again(toy: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"experiment": "to')
    run_toy(toy, tmp_path)
    assert len(measured_cells(toy)) == 6


def test_a_broken_line_in_the_middle_raises(toy: ModuleType, tmp_path: Path) -> None:
    run_toy(toy, tmp_path)
    path = tmp_path / "rows.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], "no row\n", *lines[3:]]))
    with pytest.raises(RunError, match=r"line 3 of .*rows\.jsonl"):
        run_toy(toy, tmp_path)


def test_a_changed_config_raises_naming_field_and_fix(
    toy: ModuleType, tmp_path: Path
) -> None:
    run_toy(toy, tmp_path)
    with pytest.raises(
        RunError, match=r"another config: scale was 1\.0, now 3\.0\. Giv"
    ):
        run_toy(toy, tmp_path, scale=3.0)
    with pytest.raises(RunError, match=r"rows\.jsonl.*delete the file.*--fresh"):
        run_toy(toy, tmp_path, scale=3.0)


def test_a_field_new_to_the_rows_is_a_changed_config(
    toy: ModuleType, tmp_path: Path
) -> None:
    run_toy(toy, tmp_path)
    path = tmp_path / "rows.jsonl"
    path.write_text(path.read_text().replace('"scale": 1.0, ', "", 1))
    with pytest.raises(RunError, match=r"scale was absent, now 1\.0"):
        run_toy(toy, tmp_path)


def test_fresh_measures_everything_again(
    toy: ModuleType, toys: ModuleType, tmp_path: Path
) -> None:
    assert main(["toy", "--out", str(tmp_path / "out")], toys) == 0
    again = ["toy", "--out", str(tmp_path / "out"), "--scale", "3"]
    assert main([*again, "--fresh"], toys) == 0
    assert len(measured_cells(toy)) == 12


def test_a_finished_run_only_rewrites_the_outputs(
    toy: ModuleType, tmp_path: Path
) -> None:
    run_toy(toy, tmp_path)
    (tmp_path / "table.csv").unlink()
    text = run_toy(toy, tmp_path)
    assert "all 6 cells already done; only rewriting the outputs" in text
    assert len(measured_cells(toy)) == 6
    assert (tmp_path / "table.csv").exists()


def test_rows_of_cells_no_longer_planned_are_left_out_and_said(
    toy: ModuleType, tmp_path: Path
) -> None:
    run_toy(toy, tmp_path)
    path = tmp_path / "rows.jsonl"
    stray = '{"cell": {"power": 9.0, "seed": 0}, "measured": {}, "seconds": 1.0}\n'
    path.write_text(path.read_text() + stray)
    assert "left out 1 rows whose cells are no longer planned" in run_toy(toy, tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["cells"] == 6


def test_a_log_says_once_what_is_done_left_and_stated_as_cost(
    toy: ModuleType, tmp_path: Path
) -> None:
    run_toy(toy, tmp_path)
    rows_without(tmp_path, 4)
    text = run_toy(toy, tmp_path)
    assert "6 cells, 2 already done, 4 to measure" in text
    assert "a whole run costs: a second." in text
    # Cells take no time here, so the five seconds between lines allow one line.
    assert text.count("2/6 [######--------------] 4 left") == 1
    assert text.count(" left, ") == 1
    assert "power=1.0 seed=2" in text
    assert "4 cells measured in 0:00" in text


def test_an_error_in_a_cell_keeps_the_rows_and_names_the_cell(
    toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_FAILS", "1")
    with pytest.raises(ValueError, match="the toy broke") as caught:
        run_toy(toy, tmp_path)
    assert '{"power": 1.0, "seed": 1}' in caught.value.__notes__[0]
    assert not (tmp_path / "run.json").exists()
    monkeypatch.delenv("TOY_FAILS")
    run_toy(toy, tmp_path)
    assert measured_cells(toy)[:2] == ["1.0 0", "1.0 1"]


@pytest.mark.parametrize(
    ("part", "match"),
    [
        (
            {"measure": lambda config, power, seed: {"value": Figure()}},
            "'value' as Fig",
        ),
        (
            {"measure": lambda config, power, seed: {"seed": 1}},
            "gave seed, which the c",
        ),
        ({"measure": lambda config, power, seed: 3.0}, "gave int|gave float; it must"),
        ({"cells": lambda config: []}, "plans nothing"),
        ({"cells": lambda config: [{"seed": 1}] * 2}, '{"seed": 1} twice'),
        ({"cells": lambda config: [{"seed": (1, 2)}]}, "'seed' as tuple; allowed"),
        ({"verdict": lambda config, rows: "perhaps"}, "begins 'perhaps'; it must"),
        ({"QUICK": None}, "QUICK of experiment 'toy' is not an instance"),
        ({"__doc__": "Question: Why?"}, "'toy' lacks Claim:, Expected:, Cost:, Comma"),
    ],
)
def test_an_experiment_that_breaks_the_pattern_is_told_how(
    toy: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: dict[str, object],
    match: str,
) -> None:
    for name, value in part.items():
        monkeypatch.setattr(toy, name, value)
    with pytest.raises(RunError, match=match):
        run_toy(toy, tmp_path)


@pytest.mark.parametrize("label", ["Rule", "Corrected"])
def test_a_rule_and_a_correction_are_recorded(
    toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, label: str
) -> None:
    told = f"{toy.__doc__}\n{label}: less\nthan half.\n"
    found = []
    for text in (toy.__doc__, told):
        monkeypatch.setattr(toy, "__doc__", text)
        run_toy(toy, tmp_path)
        record = json.loads((tmp_path / "run.json").read_text())
        found.append(record.get(label.lower()))
    assert found == [None, "less than half."]


def test_a_missing_part_is_named_before_anything_is_measured(
    toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(toy, "verdict")
    with pytest.raises(
        RunError, match=r"'toy' lacks verdict; every experiment exposes"
    ):
        run_toy(toy, tmp_path)
    assert measured_cells(toy) == []


def test_where_rows_differ_in_origin_all_origins_are_recorded(
    toy: ModuleType, tmp_path: Path
) -> None:
    run_toy(toy, tmp_path)
    path = tmp_path / "rows.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    stored = json.loads(lines[1])
    assert stored["device"] == jax.devices()[0].device_kind
    elsewhere = json.dumps({**stored, "device": "abacus"}) + "\n"
    path.write_text("".join([lines[0], elsewhere, *lines[2:]]))
    run_toy(toy, tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["device"] == ["abacus", stored["device"]]
    assert record["commit"] == stored["commit"]
