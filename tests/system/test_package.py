"""The source distribution and the wheel: what is in them, and what an index says."""

import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest
import yaml

import jaxreg
from experiments.harness.docs import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


# Two builds in one folder would disturb each other.
in_one_worker = pytest.mark.xdist_group("package")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sdist, and the wheel that is built from it."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("dist")
    words = [sys.executable, "-m", "build", "--outdir", folder, ROOT]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.tar.gz")), next(folder.glob("*.whl"))


def test_one_version_is_told_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == jaxreg.__version__
    assert f"\n## {jaxreg.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_the_oldest_jax_is_told_where_it_is_set():
    assert "jax>=0.10.2" in PROJECT["dependencies"]
    assert "jaxlib>=0.10.2" in PROJECT["dependencies"]
    assert "The oldest jax is 0.10.2:" in (ROOT / "CONTRIBUTING.md").read_text()


@pytest.mark.slow
@in_one_worker
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_the_sdist_has_all_that_its_tests_read(built):
    with tarfile.open(built[0]) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    words = ["git", "ls-files", "tests", "docs", "jaxreg", "experiments", ":(glob)*.md"]
    tracked = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert set(tracked.stdout.split()) <= names
    assert not [name for name in names if name.endswith((".pyc", "rows.jsonl"))]


@pytest.mark.slow
@in_one_worker
def test_the_wheel_holds_the_library_alone(built):
    with zipfile.ZipFile(built[1]) as archive:
        names = set(archive.namelist())
    info = f"jaxreg-{jaxreg.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"jaxreg", info}
    assert "jaxreg/py.typed" in names


@pytest.mark.slow
@in_one_worker
def test_an_index_can_show_the_description(built):
    pytest.importorskip("twine")
    words = [sys.executable, "-m", "twine", "check", "--strict", *built]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
