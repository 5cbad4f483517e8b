"""The experiments on the cost of L1, on decay and on feature selection."""

import functools
import io
import os
import pathlib
import tempfile

import pytest

from experiments.claims import feature_selection, gene_expression
from experiments.correctness import decay
from experiments.cost import cost
from experiments.harness import runner
from tests.support.figures import assert_figure_shows_its_rows

DATA = pathlib.Path(os.environ.get("JAXREG_DATA", ""))
HAS_GENES = (DATA / "microarray").is_dir()
# Each test reads the one quick run of its experiment: they belong on one worker.
pytestmark = pytest.mark.xdist_group("claims_on_linear_models")


@functools.cache
def quick_run(experiment):
    """The record of a quick run, whose figure shows its rows."""
    with tempfile.TemporaryDirectory() as name:
        folder, config = pathlib.Path(name), experiment.QUICK
        record = runner.run(
            experiment, config, folder, quick=True, stream=io.StringIO()
        )
        assert_figure_shows_its_rows(experiment, config, folder)
        return record


def rows_of(experiment, **wanted):
    """The rows of the quick run's table with these values."""
    table = quick_run(experiment)["table"]
    return [row for row in table if wanted.items() <= row.items()]


@pytest.mark.release
@pytest.mark.parametrize(
    "experiment", [cost, decay, feature_selection], ids=runner.name_of
)
def test_a_quick_run_has_a_verdict_and_a_table(experiment):
    record = quick_run(experiment)
    assert record["verdict"] and record["table"]


@pytest.mark.parametrize("method", [m for m in cost.METHODS if m != cost.SUBGRADIENT])
@pytest.mark.slow
def test_methods_with_a_prox_end_at_scikit_learns_solution(method):
    (row,) = rows_of(cost, method=method)
    # Float64, and both sides solve to rounding.
    assert row["worst_error"] < 1e-10 and row["worst_violation"] < 1e-10
    assert row["zeros"] == row["sklearn_zeros"]


@pytest.mark.slow
def test_subgradients_take_100_times_the_iterations_of_ista():
    ((slow,), (ista,), (fista,)) = (
        rows_of(cost, method=name) for name in (cost.SUBGRADIENT, cost.ISTA, cost.FISTA)
    )
    assert slow["arrived"] == 0 and slow["zeros"] == 0
    assert 100 * ista["iterations"] < slow["iterations"]
    assert fista["iterations"] < ista["iterations"]


@pytest.mark.slow
@pytest.mark.parametrize("problem", decay.DESIGNS)
@pytest.mark.parametrize("way", decay.WAYS)
@pytest.mark.parametrize("optimizer", decay.OPTIMIZERS)
def test_decay_ends_at_the_fixed_point_of_theory(problem, optimizer, way):
    (row,) = rows_of(decay, problem=problem, optimizer=optimizer, way=way)
    # Adam's eps of 1e-8 counts over the least curvature, 0.01.
    is_box = row["fixed_point"] == "box"
    assert row["worst_error"] < (1e-5 if is_box else 1e-10)
    assert is_box == (optimizer == "adam" and way in decay.WAYS[1:3])


@pytest.mark.slow
def test_l2_in_the_loss_is_decay_under_sgd_alone():
    (loss,), (beside,) = (
        rows_of(decay, problem=decay.MLP, optimizer="sgd", way=way)
        for way in (decay.LOSS, decay.BESIDE)
    )
    # The same arithmetic in another order.
    assert loss["norm"] == pytest.approx(beside["norm"], rel=1e-5)
    (loss,), (beside,) = (
        rows_of(decay, problem=decay.MLP, optimizer="adam", way=way)
        for way in (decay.LOSS, decay.BESIDE)
    )
    assert loss["norm"] < 0.99 * beside["norm"]


@pytest.mark.slow
def test_every_fit_of_feature_selection_is_that_of_scikit_learn():
    for row in quick_run(feature_selection)["table"]:
        assert row["worst_error"] < 1e-6, row
        assert row["worst_violation"] < 1e-6, row


@pytest.mark.slow
def test_the_diabetes_path_is_that_of_efron_and_others():
    (path,) = rows_of(feature_selection, case="path")
    assert path["order"] == feature_selection.ORDER
    assert path["largest"] == pytest.approx(2.1480, abs=5e-5)
    for case, counts in (("lasso", [3, 7, 10]), ("ridge", [10, 10, 10])):
        (row,) = rows_of(feature_selection, case=case)
        assert row["nonzeros_at_1_.1_.01"] == counts


@pytest.mark.slow
def test_the_lasso_has_the_right_signs_where_the_condition_holds():
    part = feature_selection.SIGNS
    (row,) = rows_of(feature_selection, part=part, case=feature_selection.HOLDS)
    assert row["right"] == 1


def test_stability_is_one_for_equal_sets_zero_for_random_ones():
    equal = [{1, 5}, {1, 5}, {1, 5}]
    assert gene_expression.jaccard(equal) == gene_expression.nogueira(equal, 9) == 1
    apart = [{0, 1}, {2, 3}]
    assert gene_expression.jaccard(apart) == 0
    # 1 - (4 / 8 / 2) / (1 / 4 * 3 / 4), by hand.
    assert gene_expression.nogueira(apart, 8) == pytest.approx(1 - 0.25 / 0.1875)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_GENES, reason="JAXREG_DATA holds no microarray/")
def test_l1_keeps_fewer_genes_than_the_elastic_net_l2_all():
    l1, net, l2 = quick_run(gene_expression)["table"]
    assert 0 < l1["genes"] < net["genes"] < l2["genes"] == l2["of"] == 2000
    # The last fits stop where a step moves nothing by 1e-7 of its rate.
    assert max(row["worst_violation"] for row in (l1, net, l2)) < 1e-6
