"""The files of a run: whole or not at all, and by one writer at a time."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from experiments.harness.contract import RunError


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the system says of a write below into a RunError that names the path.

    That is a disk that is full or read-only, or a file where a folder should be.
    """
    try:
        yield
    except OSError as error:
        raise RunError(
            f"{path} cannot be written: {error.strerror}. Make room, or name another "
            "folder with --out; finished rows are kept, and the same command without "
            "--fresh goes on from there"
        ) from error


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keeps a folder for this process, until the block or the process ends.

    Raises:
      RunError: another process has it.
    """
    # The folder itself: a lock file would stay behind after a kill.
    handle = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise RunError(
            f"another run is at work in {directory}; wait until it ends, or name "
            "another folder with --out"
        ) from error
    try:
        yield
    finally:
        os.close(handle)


def replace(path: Path, content: bytes) -> None:
    """Writes a file, which holds its old content until the new one is whole."""
    partial = path.with_name(f".{path.name}.partial")
    with writing(path):
        partial.write_bytes(content)
        partial.replace(path)
