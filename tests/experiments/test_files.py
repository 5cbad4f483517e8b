"""Runs on a full disk, beside another run, and with damaged data."""

import gzip
import io
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from experiments.__main__ import main
from experiments.harness.contract import RunError
from experiments.harness.files import locked
from experiments.harness.runner import run
from experiments.kit import data_sets


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Writes beyond this many bytes of a file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def run_toy(toy: ModuleType, directory: Path) -> None:
    run(toy, toy.Config(), directory, quick=False, stream=io.StringIO())


def stored_cells(directory: Path) -> list[object]:
    lines = (directory / "rows.jsonl").read_text().splitlines()
    return [json.loads(line)["cell"] for line in lines[1:]]


def test_a_second_run_in_one_folder_measures_nothing(
    toy: ModuleType, tmp_path: Path
) -> None:
    # A lock belongs to an open file, so that one process can stand for two.
    with (
        locked(tmp_path),
        pytest.raises(RunError, match=r"another run is at work in /"),
    ):
        run_toy(toy, tmp_path)
    assert not toy.CALLS.exists()
    run_toy(toy, tmp_path)
    run_toy(toy, tmp_path)
    assert len(stored_cells(tmp_path)) == len(toy.CALLS.read_text().splitlines()) == 6


def test_a_full_disk_keeps_the_finished_rows(toy: ModuleType, tmp_path: Path) -> None:
    run_toy(toy, tmp_path)
    path = tmp_path / "rows.jsonl"
    sizes = [len(line) for line in path.read_bytes().splitlines(keepends=True)]
    path.unlink()
    # Within the line of the third cell, which is cut off.
    full = files_up_to(sum(sizes[:3]) + sizes[3] // 2)
    with (
        full,
        pytest.raises(RunError, match=r"rows\.jsonl cannot be written: File too"),
    ):
        run_toy(toy, tmp_path)
    assert path.stat().st_size > sum(sizes[:3])
    toy.CALLS.unlink()
    run_toy(toy, tmp_path)
    assert len(stored_cells(tmp_path)) == 6
    assert len(toy.CALLS.read_text().splitlines()) == 4


def test_outputs_stay_whole_on_a_full_disk(toy: ModuleType, tmp_path: Path) -> None:
    run_toy(toy, tmp_path)
    outputs = {
        name: (tmp_path / name).read_bytes()
        for name in ("table.csv", "figure.png", "run.json")
    }
    full = files_up_to(10)
    with full, pytest.raises(RunError, match=r"table\.csv cannot be written: File too"):
        run_toy(toy, tmp_path)
    assert outputs == {name: (tmp_path / name).read_bytes() for name in outputs}


def test_out_that_cannot_be_a_folder_is_named(
    toys: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "out"
    file.write_text("")
    # Nobody can make a folder in /proc, not even root on a disk that is read-only.
    for out in (file, Path("/proc/results")):
        assert main(["toy", "--out", str(out)], toys) == 1
        told = capsys.readouterr().err
        assert f"error: {out}/toy cannot be written: No" in told
        assert "with --out" in told
    assert main(["--list", "--out", str(file)], toys) == 0


def test_a_damaged_data_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAXREG_DATA", str(tmp_path))
    for folder in ("mnist", "microarray", "mice-protein"):
        (tmp_path / folder).mkdir()
    images = tmp_path / "mnist" / "train-images-idx3-ubyte.gz"
    whole = gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 9, *range(9)]))
    short = gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 9, *range(5)]))
    for content in (whole[:-9], whole[:-4], short, b"no gzip", b""):
        images.write_bytes(content)
        with pytest.raises(RunError, match=r"idx3-ubyte\.gz is cut off or damaged \("):
            data_sets.images("mnist")
    genes = tmp_path / "microarray" / "alon.npz"
    np.savez(genes, X=np.ones((4, 3)), y=np.ones(4))
    genes.write_bytes(genes.read_bytes()[:-30])
    with pytest.raises(RunError, match=r"alon\.npz is cut off or damaged \("):
        data_sets.gene_expression("alon")
    mice = tmp_path / "mice-protein" / "Data_Cortex_Nuclear.csv"
    mice.write_text(",".join(["MouseID"] * 82) + "\n309_1,0.5,0.2")
    with pytest.raises(RunError, match=r"Nuclear\.csv is cut off or damaged \("):
        data_sets.mice_protein()


def test_an_error_of_the_data_is_told_with_its_cell(
    toys: ModuleType,
    toy: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def measure(config: object, power: float, seed: int) -> None:
        raise RunError("images.gz is cut off")

    monkeypatch.setattr(toy, "measure", measure)
    assert main(["toy", "--out", str(tmp_path)], toys) == 1
    told = capsys.readouterr().err
    assert "error: images.gz is cut off\nExperiment 'toy' stopped in cell {" in told
