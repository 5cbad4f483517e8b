"""The claims about outliers, stability and generalization: run, and as stated."""

import io

import numpy as np
import pytest

from experiments.claims import feature_noise, generalization, outliers, stability
from experiments.harness.runner import run
from tests.support.figures import assert_figure_shows_its_rows

# The quick runs of the default suite are CI's own step.
EXPERIMENTS = [feature_noise, generalization]


@pytest.mark.release
@pytest.mark.parametrize("module", EXPERIMENTS, ids=lambda module: module.__name__)
def test_a_quick_run_has_the_weights_of_scikit_learn(module, tmp_path):
    record = run(module, module.QUICK, tmp_path, quick=True, stream=io.StringIO())
    assert_figure_shows_its_rows(module, module.QUICK, tmp_path)
    checked = [row for row in record["table"] if row["from_sklearn"] is not None]
    assert checked
    for row in checked:
        # Float64 fits of two algorithms, each stopped near rounding.
        assert row["from_sklearn"] < 1e-6
        assert row["kkt"] < 1e-6


@pytest.mark.parametrize("method", outliers.METHODS)
@pytest.mark.slow
def test_the_loss_and_not_the_penalty_keeps_outliers_out(method):
    row = outliers.measure(outliers.QUICK, outliers.LINEAR, method, size=65.0, seed=0)
    assert (row["error"] > 5) == method.startswith("squared")
    # As above.
    assert row["from_sklearn"] < 1e-6
    assert row["kkt"] < 1e-6


@pytest.mark.parametrize("part", [feature_noise.EACH, feature_noise.TOGETHER])
@pytest.mark.slow
def test_a_search_finds_the_worst_change_of_the_theorem(part):
    config = feature_noise.Config()
    row = feature_noise.measure(config, part, "L1", amount=0.1, seed=0)
    # The ascent's last steps are short.
    assert row["searched"] == pytest.approx(row["worst"], rel=1e-3)
    assert row["searched"] <= row["worst"] * (1 + 1e-12)


@pytest.mark.slow
def test_irrelevant_features_hurt_l2_and_hardly_l1():
    cell = {"part": feature_noise.GAUSSIAN, "amount": 80.0, "seed": 0}
    l1, l2 = (
        feature_noise.measure(feature_noise.QUICK, method=method, **cell)["error"]
        for method in ("L1", "L2")
    )
    assert l1 < 1.6 < 2.0 < l2


@pytest.mark.parametrize("method", stability.METHODS)
def test_one_sample_of_many_moves_the_weights_of_l1_alone(method):
    jumps = [
        stability.measure(stability.QUICK, stability.REPLACE, method, samples, seed=0)
        for samples in (50, 400)
    ]
    few, many = (row["spread"] for row in jumps)
    if method == "L1":
        assert few > 1 and many > 1
    else:
        # 1 / n, up to the noise of the samples.
        assert many == pytest.approx(few / 8, rel=0.2)


@pytest.mark.slow
def test_only_the_elastic_net_gives_equal_columns_equal_weights():
    gaps = {
        method: stability.measure(
            stability.QUICK, stability.TWINS, method, samples=442, seed=0
        )["spread"]
        for method in ("L1", "elastic net")
    }
    assert gaps["L1"] > 0.1
    # Rounding of weights below 1.
    assert gaps["elastic net"] < 1e-12


def test_selection_stability_is_1_for_equal_supports_0_at_random():
    drawn = np.random.default_rng(0).random((400, 50)) < 0.3
    assert stability.selection_stability(np.repeat(drawn[:1], 5, axis=0)) == 1
    # The standard deviation of 400 random sets' agreement.
    assert abs(stability.selection_stability(drawn)) < 0.01


@pytest.mark.slow
def test_the_truth_decides_which_penalty_generalises():
    def error(method, relevant):
        cell = {"problem": generalization.LINEAR, "amount": relevant, "seed": 0}
        row = generalization.measure(generalization.QUICK, method=method, **cell)
        return row["error"]

    assert error("L1", 5) < 1 < error("L2", 5)
    assert error("L2", 200) < error("L1", 200)
