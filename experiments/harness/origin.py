"""The provenance of numbers: commit, device, versions.

Recorded with every row, not once per run: a run resumed after an upgrade or on another
machine must not claim that its last session measured everything.
"""

import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax

from experiments.harness.contract import Row

PACKAGES = ("jax", "jaxlib", "optax", "flax", "numpy")


def here() -> Row:
    """The origin of the numbers that this process measures."""
    installed = {package: importlib.metadata.version(package) for package in PACKAGES}
    return {
        **commit_of(Path(__file__).parents[1]),
        "device": _device(),
        "cpu_count": os.cpu_count(),
        "versions": {"python": platform.python_version(), **installed},
    }


def together(origins: Sequence[Row]) -> Row:
    """One origin for many rows: each value, or the list of values where they differ."""

    def agreed(values: Iterable[Any]) -> Any:
        distinct = list(dict.fromkeys(values))
        return distinct[0] if len(distinct) == 1 else distinct

    keys = ("commit", "dirty", "device", "cpu_count")
    return {key: agreed(origin[key] for origin in origins) for key in keys} | {
        "versions": {
            package: agreed(origin["versions"][package] for origin in origins)
            for package in ("python", *PACKAGES)
        }
    }


def commit_of(folder: Path) -> Row:
    """The commit of a checkout and whether it has other changes; None without one.

    Changes under `folder/results` do not count: a run must not make itself dirty.
    """

    def git(*words: str) -> str | None:
        done = subprocess.run(
            ["git", *words], cwd=folder, capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "--verify", "HEAD") if shutil.which("git") else None
    if commit is None:
        return {"commit": None, "dirty": None}
    changed = git("status", "--porcelain", "--", ":(top)", ":(exclude)results")
    return {"commit": commit, "dirty": bool(changed)}


def _device() -> str:
    device = jax.devices()[0]
    kind = device.device_kind
    return kind if kind == device.platform else f"{device.platform} ({kind})"
