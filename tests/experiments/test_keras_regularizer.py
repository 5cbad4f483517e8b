"""The experiment on Keras' kernel_regularizer: equal weights, different zeros."""

import dataclasses
import importlib.util

import pytest

from experiments.claims import keras_regularizer
from experiments.claims.keras_regularizer import (
    FORMULAS,
    KERAS,
    OPTAX,
    OURS,
    QUICK,
    SAME,
)
from experiments.harness.runner import run
from tests.support.figures import assert_figure_shows_its_rows

CELL = {"strength": 1e-2, "seed": 0}
HAS_KERAS = importlib.util.find_spec("keras") is not None
# They share the trainings that the experiment keeps.
pytestmark = pytest.mark.xdist_group("keras_regularizer")


@pytest.mark.slow
def test_a_penalty_gradient_before_adam_is_keras_formulas():
    config = dataclasses.replace(QUICK, steps=10, early=5)
    row = keras_regularizer.measure(config, way=SAME, **CELL)
    # Float64; rounding grows with the steps.
    assert row["early_from_formulas"] < 1e-14
    assert row["from_formulas"] < 1e-13
    assert row["exact_zeros"] == 0 < row["below_1e-3"]


@pytest.mark.slow
@pytest.mark.skipif(not HAS_KERAS, reason="Keras is not installed")
def test_a_penalty_gradient_before_adam_gives_keras_weights():
    row = keras_regularizer.measure(QUICK, way=SAME, **CELL)
    assert row["early_from_keras"] < 1e-12


@pytest.mark.slow
def test_the_epsilon_of_optax_leads_elsewhere():
    row = keras_regularizer.measure(QUICK, way=OPTAX, **CELL)
    assert row["early_from_formulas"] > 1e-4
    assert row["exact_zeros"] == 0


@pytest.mark.slow
def test_regularize_zeroes_most_weights_of_the_layer():
    row = keras_regularizer.measure(QUICK, way=OURS, **CELL)
    assert row["exact_zeros"] > 0.9
    assert row["test_accuracy"] > 0.9


def test_keras_itself_is_measured_where_it_is_installed(monkeypatch):
    for spec, ways in ((None, []), (object(), [KERAS])):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, spec=spec: spec)
        cells = keras_regularizer.cells(QUICK)
        assert [cell["way"] for cell in cells] == [*ways, FORMULAS, SAME, OPTAX, OURS]


@pytest.mark.slow
def test_a_quick_run_says_whether_keras_was_there(tmp_path):
    with open(tmp_path / "log", "w") as stream:
        record = run(keras_regularizer, QUICK, tmp_path, quick=True, stream=stream)
    assert_figure_shows_its_rows(keras_regularizer, QUICK, tmp_path)
    assert record["verdict"].startswith("holds with conditions")
    for row in record["table"]:
        assert (row["keras"] == "not installed") == (row["from_keras"] is None)
        assert (row["keras"] == "not installed") == (not HAS_KERAS)
