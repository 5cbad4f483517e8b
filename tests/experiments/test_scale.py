"""The experiment on memory at scale: predictions from small models."""

import io

import pytest

from experiments.cost import scale
from experiments.harness.runner import run
from tests.support.figures import assert_figure_shows_its_rows


@pytest.mark.slow
def test_small_models_foretell_the_bytes_of_larger_ones(tmp_path):
    record = run(scale, scale.QUICK, tmp_path, quick=True, stream=io.StringIO())
    assert_figure_shows_its_rows(scale, scale.QUICK, tmp_path)
    rows = [row for row in record["table"] if row["dtype"] == "float32"]
    assert {row["latent"] for row in rows if "regularize" in row["way"]} == {4.0}
    (base,) = (row for row in rows if row["way"] == scale.BASE)
    assert (base["parameters"], base["state"], base["latent"]) == (4.0, 8.0, 0.0)
    # Biases and norms of groups are a small part of small models.
    assert all(row["held_error"] < 0.02 for row in rows)
