"""The progress bar: redrawn on a terminal, sparing in a log."""

import io
import os

import pytest

from experiments.harness.progress import Progress, clock


def test_a_terminal_gets_one_line_redrawn_for_every_cell() -> None:
    reader, writer = os.openpty()
    with open(writer, "w") as terminal:
        with Progress("toy", total=6, ready=2, stream=terminal) as progress:
            for seed in range(4):
                progress.begin({"seed": seed})
                progress.finish()
        text = ""
        while "measured in" not in text:
            text += os.read(reader, 100_000).decode()
    os.close(reader)
    first, *drawn = text.replace("\r\n", "\n").split("\r")
    assert (first, len(drawn)) == ("", 4)
    assert drawn[0].startswith(
        "toy 2/6 [######--------------] 4 left, 0:00 spent, ? to"
    )
    assert drawn[3].startswith(
        "toy 5/6 [################----] 1 left, 0:00 spent, 0:00"
    )
    assert "\ntoy: 4 cells measured in" in drawn[3]


def test_a_log_gets_one_line_in_five_seconds() -> None:
    log = io.StringIO()
    with Progress("toy", total=100, ready=0, stream=log) as progress:
        for seed in range(100):
            progress.begin({"seed": seed, "method": "L1"})
            progress.finish()
    lines = log.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("seed=0 method=L1")


def test_a_stopped_run_says_how_many_cells_are_left() -> None:
    log = io.StringIO()
    with (
        pytest.raises(ValueError, match="broken"),
        Progress("toy", total=9, ready=1, stream=log) as progress,
    ):
        progress.begin({"seed": 0})
        progress.finish()
        raise ValueError("broken")
    assert log.getvalue().endswith("toy: 1 cells measured in 0:00, 7 left\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0:00"), (59.7, "1:00"), (61, "1:01"), (7322, "2:02:02")],
)
def test_clock_shows_hours_only_where_there_are_any(seconds: float, text: str) -> None:
    assert clock(seconds) == text
