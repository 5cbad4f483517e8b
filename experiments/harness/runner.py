"""Runs one experiment: plan, resume, measure, write.

The finished rows are the checkpoint (see `rows`). From them come `table.csv`,
`figure.png` and `run.json`, rewritten by every run that reaches the end; `run.json`
comes last, so a folder that holds one holds a whole result.
"""

import csv
import dataclasses
import datetime
import io
import json
import time
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO

from experiments.harness import rows
from experiments.harness.contract import (
    Config,
    Row,
    RunError,
    cell_key,
    check,
    command_line,
    name_of,
    plan,
    require_plain,
    statement,
)
from experiments.harness.files import locked, replace, writing
from experiments.harness.origin import here, together
from experiments.harness.progress import Progress
from experiments.harness.report import VERDICTS, columns


def run(
    module: ModuleType,
    config: Config,
    directory: Path,
    *,
    quick: bool,
    stream: TextIO,
    fresh: bool = False,
) -> Row:
    """Measures the missing cells, writes the outputs, returns what `run.json` holds.

    `directory` belongs to this experiment alone; `quick` says that `config` started
    from `module.QUICK`; `fresh` deletes the rows of earlier runs first.

    Raises:
      RunError: the module is incomplete, a value is not plain, the rows on disk were
        measured with another config, another run is at work in `directory`, or it
        cannot be written.
      Exception: the exception of `measure`, with a note that names the cell; the
        finished rows are kept.
    """
    check(module)
    cells = plan(module, config)
    with writing(directory):
        directory.mkdir(parents=True, exist_ok=True)
    with locked(directory):
        finished = _finished(module, config, directory, cells, stream, fresh)
        return _write_outputs(module, config, directory, finished, quick)


def _finished(
    module: ModuleType,
    config: Config,
    directory: Path,
    cells: list[Row],
    stream: TextIO,
    fresh: bool,
) -> list[Row]:
    """The rows of all cells; measures those that are not on disk."""
    path = directory / "rows.jsonl"
    if fresh:
        with writing(path):
            path.unlink(missing_ok=True)
    settings: Row = json.loads(json.dumps(dataclasses.asdict(config)))
    done = rows.load(path, name_of(module), settings)
    missing = [cell for cell in cells if cell_key(cell) not in done]
    print(
        _announce(module, len(cells), len(missing), len(done)), file=stream, flush=True
    )
    if missing:
        ready = len(cells) - len(missing)
        with Progress(name_of(module), len(cells), ready, stream) as progress:
            done |= _measure(module, config, missing, path, progress)
    return [done[cell_key(cell)] for cell in cells]


def _announce(module: ModuleType, cells: int, missing: int, stored: int) -> str:
    name, ready = name_of(module), cells - missing
    text = f"{name}: {cells} cells, {ready} already done, {missing} to measure"
    if not missing:
        text = f"{name}: all {cells} cells already done; only rewriting the outputs"
    if stored > ready:
        text += f"; left out {stored - ready} rows whose cells are no longer planned"
    cost = f"\n{name}: a whole run costs: {statement(module)['cost']}"
    return text + (cost if missing else "")


def _measure(
    module: ModuleType, config: Config, cells: list[Row], path: Path, progress: Progress
) -> dict[str, Row]:
    measured: dict[str, Row] = {}
    origin = here()
    for cell in cells:
        progress.begin(cell)
        start = time.perf_counter()
        try:
            values = module.measure(config, **cell)
        except Exception as error:
            error.add_note(
                f"Experiment {name_of(module)!r} stopped in cell {cell_key(cell)}. The "
                f"finished rows are kept in {path}; the same command without --fresh "
                "goes on from there."
            )
            raise
        seconds = round(time.perf_counter() - start, 3)
        _require_measured(name_of(module), cell, values)
        line = {"cell": cell, "measured": values, "seconds": seconds, **origin}
        measured[cell_key(cell)] = rows.append(path, line)
        progress.finish()
    return measured


def _require_measured(name: str, cell: Row, values: Any) -> None:
    where = f"measure() of experiment {name!r} in cell {cell_key(cell)}"
    if not isinstance(values, dict):
        raise RunError(f"{where} gave {type(values).__name__}; it must give a dict")
    shared = sorted(cell.keys() & values.keys())
    if shared:
        raise RunError(
            f"{where} gave {', '.join(shared)}, which the cell holds already; a row is "
            "the cell and the measured values together, so give it another name"
        )
    require_plain(where, values, nested=True)


def _write_outputs(
    module: ModuleType,
    config: Config,
    directory: Path,
    finished: list[Row],
    quick: bool,
) -> Row:
    name = name_of(module)
    rows = [{**line["cell"], **line["measured"]} for line in finished]
    table = [dict(row) for row in module.summarise(config, rows)]
    for row in table:
        require_plain(f"summarise() of experiment {name!r}", row, nested=True)
    start = module.QUICK if quick else module.Config()
    record = {
        "experiment": name,
        "quick": quick,
        **statement(module),
        "command": command_line(name, config, start, quick),
        "verdict": _verdict(module, config, rows),
        "table": table,
        "config": dataclasses.asdict(config),
        "cells": len(rows),
        "seconds": round(sum(line["seconds"] for line in finished), 3),
        **together(finished),
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    replace(directory / "table.csv", _csv(table).encode())
    replace(directory / "figure.png", _png(module, config, rows))
    replace(directory / "run.json", (json.dumps(record, indent=2) + "\n").encode())
    stored: Row = json.loads(json.dumps(record))
    return stored


def _verdict(module: ModuleType, config: Config, rows: list[Row]) -> str:
    verdict = " ".join(module.verdict(config, rows).split())
    if not verdict.startswith(VERDICTS):
        raise RunError(
            f"verdict() of experiment {name_of(module)!r} begins {verdict[:30]!r}; it "
            f"must begin with one of {', '.join(VERDICTS)}"
        )
    return verdict


def _csv(table: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns(table), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def _png(module: ModuleType, config: Config, rows: list[Row]) -> bytes:
    # Here and not above: planning, listing and resuming need no plotting library.
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    image = io.BytesIO()
    figure = module.plot(config, rows)
    figure.savefig(image, format="png", dpi=150, bbox_inches="tight", facecolor="white")
    pyplot.close(figure)
    return image.getvalue()
