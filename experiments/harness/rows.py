"""The finished cells of one experiment on disk: the checkpoint of a run.

`rows.jsonl` holds a header (experiment and config), then one line per finished cell:

    {"experiment": "sparsity", "config": {"epochs": 5}}
    {"cell": {"seed": 0}, "measured": {"loss": 0.1}, "seconds": 1.5, ...}

The rest of a line says where it was measured: commit, device, versions. A line is on
disk before the next cell starts. A line without its newline was cut off by a kill, so
its cell counts as unfinished. NaN and infinities survive the round trip as the literals
`NaN`, `Infinity` and `-Infinity`, which Python's `json` reads back and stricter parsers
reject.
"""

import json
import os
from pathlib import Path

from experiments.harness.contract import Row, RunError, cell_key
from experiments.harness.files import writing


def load(path: Path, experiment: str, config: Row) -> dict[str, Row]:
    """The finished lines by cell key; starts the file where there is none.

    Raises:
      RunError: the file belongs to another config, holds a line of unknown form, or
        cannot be written.
    """
    raw = path.read_bytes() if path.exists() else b""
    whole = raw[: raw.rfind(b"\n") + 1]
    if len(whole) < len(raw):
        with writing(path):
            os.truncate(path, len(whole))
    header = {"experiment": experiment, "config": config}
    if not whole:
        append(path, header)
        return {}
    texts = whole.decode(errors="replace").split("\n")[:-1]
    first = _parse(path, 1, texts[0], {"experiment", "config"})
    _require_same(path, first, header)
    lines = [
        _parse(path, number, text, {"cell", "measured", "seconds"})
        for number, text in enumerate(texts[1:], start=2)
    ]
    return {cell_key(line["cell"]): line for line in lines}


def append(path: Path, line: Row) -> Row:
    """Writes a line through to the disk and returns it as a later `load` would."""
    text = json.dumps(line)
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    stored: Row = json.loads(text)
    return stored


def _parse(path: Path, number: int, text: str, wanted: set[str]) -> Row:
    try:
        line = json.loads(text)
    except json.JSONDecodeError:
        line = None
    if not isinstance(line, dict) or not wanted <= line.keys():
        raise RunError(
            f"line {number} of {path} is not one this runner wrote; delete that line "
            "to measure its cell again, or start over with --fresh"
        )
    return line


def _require_same(path: Path, header: Row, expected: Row) -> None:
    then = {"experiment": header["experiment"], **header["config"]}
    now = {"experiment": expected["experiment"], **expected["config"]}

    def shown(settings: Row, field: str) -> str:
        return json.dumps(settings[field]) if field in settings else "absent"

    differing = [
        f"{field} was {shown(then, field)}, now {shown(now, field)}"
        for field in dict.fromkeys([*now, *then])
        if shown(then, field) != shown(now, field)
    ]
    if differing:
        raise RunError(
            f"{path} was measured with another config: {'; '.join(differing)}. Give "
            "the same config, delete the file, or add --fresh, which deletes it"
        )
