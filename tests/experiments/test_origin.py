"""The origin of results, as recorded beside them."""

import subprocess
from pathlib import Path

import jax

from experiments.harness.origin import commit_of, here, together


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=Test", "-c", "user.email=test@localhost"]
    done = subprocess.run(
        ["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "experiments"
    (folder / "results").mkdir(parents=True)
    (folder / "one.py").write_text("1\n")
    (folder / "results" / "table.csv").write_text("1\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return folder


def test_a_clean_checkout_gives_its_commit(tmp_path: Path) -> None:
    folder = checkout(tmp_path)
    head = git(tmp_path, "rev-parse", "HEAD")
    assert commit_of(folder) == {"commit": head, "dirty": False}


def test_a_change_anywhere_in_the_checkout_is_dirty(tmp_path: Path) -> None:
    folder = checkout(tmp_path)
    (tmp_path / "library.py").write_text("new\n")
    assert commit_of(folder)["dirty"] is True


def test_results_do_not_make_a_checkout_dirty(tmp_path: Path) -> None:
    folder = checkout(tmp_path)
    (folder / "results" / "table.csv").write_text("2\n")
    (folder / "results" / "figure.png").write_bytes(b"")
    assert commit_of(folder)["dirty"] is False


def test_a_folder_without_a_checkout_has_no_commit(tmp_path: Path) -> None:
    assert commit_of(tmp_path) == {"commit": None, "dirty": None}


def test_rows_keep_one_origin_and_list_differing_values() -> None:
    origin = here()
    assert together([origin, origin]) == origin
    newer = {**origin["versions"], "jax": "99"}
    elsewhere = {**origin, "device": "abacus", "versions": newer}
    both = together([origin, elsewhere])
    assert both["device"] == [origin["device"], "abacus"]
    assert both["versions"]["jax"] == [jax.__version__, "99"]
    assert both["commit"] == origin["commit"]
