"""Fixtures of all tests: compiled programs, and a small package of experiments."""

import importlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import jax
import pytest

SHARE_ALL = {
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
TOYS = Path(__file__).parent / "experiments" / "toys"
RESULTS = Path(__file__).parents[1] / "experiments" / "results"

# Tests run most programs once. Without LLVM's optimizations they compile in three
# quarters of the time, and with other code from XLA, a flag that later versions do not
# know, in half of it; neither laws nor exact zeros may depend on either.
# `XLA_FLAGS= python -m pytest` optimizes.
PLAINLY = "--xla_backend_optimization_level=0"
if jax.__version_info__ < (0, 11):
    PLAINLY += " --xla_cpu_use_fusion_emitters=false"


def pytest_configure(config: pytest.Config) -> None:
    os.environ.setdefault("XLA_FLAGS", PLAINLY)
    # On a GPU the workers share its memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    # Most of the time goes into compiling, often the same program in another process.
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = tempfile.mkdtemp(prefix="jaxreg-tests-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        # For the workers and for the processes that tests start.
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
        jax.config.update("jax_compilation_cache_dir", folder)
    for name, value in SHARE_ALL.items():
        os.environ[name.upper()] = str(value)
        jax.config.update(name, value)


_tests = itertools.count(1)


@pytest.fixture(autouse=True)
def few_programs_in_memory() -> Iterator[None]:
    # Linux lets a process map 65,530 regions; the programs of 3,000 laws need more, and
    # LLVM then aborts.
    yield
    if next(_tests) % 200 == 0:
        jax.clear_caches()


@pytest.fixture
def committed_results() -> Path:
    """The folder of results as they were committed.

    Who measures them again has other timings, on another processor other digits: then
    the documents still say what was committed, and the test is skipped.
    """
    words = ["git", "status", "--porcelain", "--", str(RESULTS)]
    done = subprocess.run(
        words, cwd=RESULTS, capture_output=True, text=True, check=False
    )
    if done.returncode == 0 and done.stdout:
        pytest.skip(
            "results were measured again; python -m experiments.harness.docs writes "
            "their tables into the documents"
        )
    return RESULTS


@pytest.fixture
def x64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """This test's own copy of the package of experiments."""
    shutil.copytree(TOYS, tmp_path / "toys")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("toys", "toys.toy", "toys.needy"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("toys")


@pytest.fixture
def toy(toys: ModuleType) -> ModuleType:
    return importlib.import_module("toys.toy")
