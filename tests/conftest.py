"""A small package of experiments for the tests of the runner."""

import importlib
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOYS = Path(__file__).with_name("toys")


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
