"""The experiments on choosing a strength: their fits, their choices, quick runs."""

import dataclasses
import io

import numpy as np
import pytest
from sklearn import linear_model

from experiments.harness.runner import run
from experiments.strength import _sweeps, choosing_strength, warm_starts
from tests.support.figures import assert_figure_shows_its_rows

EXACT = dataclasses.replace(choosing_strength.QUICK, tolerance=1e-9, most=50_000)


def swept(problem, way=_sweeps.DOWN):
    split, _ = _sweeps.load(EXACT, problem, 0)
    masks = _sweeps.folds(EXACT, problem, split, 0)
    strengths = _sweeps.grid(EXACT, problem, split, 0)
    found = _sweeps.sweep(EXACT, problem, way, 0, split, strengths, masks)
    return split, masks, strengths, found


@pytest.mark.slow
def test_the_fits_are_those_of_scikit_learn_on_every_fold(x64):
    split, masks, strengths, found = swept(_sweeps.CANCER)
    for fold, mask in enumerate(np.asarray(masks)):
        x, y = split.train_x[~mask], split.train_y[~mask]
        theirs = linear_model.LogisticRegression(
            C=1 / (len(y) * float(strengths[3])),
            l1_ratio=1.0,
            solver="saga",
            tol=1e-10,
            max_iter=100_000,
        ).fit(x, y)
        # Two algorithms, each stopped near rounding.
        off = found.weights[3, fold] - theirs.coef_[0]
        assert abs(np.asarray(off)).max() < 1e-6


@pytest.mark.slow
def test_a_fold_that_holds_nothing_out_is_the_fit_of_all_samples(x64):
    split, masks, strengths, found = swept(_sweeps.DIABETES)
    assert not masks[-1].any()
    theirs = linear_model.Lasso(float(strengths[3]), tol=1e-12, max_iter=100_000)
    theirs.fit(*split[:2])
    np.testing.assert_allclose(found.weights[3, -1], theirs.coef_, atol=1e-7)
    loss = np.mean((theirs.predict(split.test_x) - split.test_y) ** 2)
    assert float(found.test[3, -1]) == pytest.approx(loss, rel=1e-6)


@pytest.mark.release
def test_of_a_sparse_truth_a_refit_finds_the_support(x64):
    row = choosing_strength.measure(
        choosing_strength.Config(strengths=15, pairs=10), _sweeps.SPARSE, seed=0
    )
    chosen = {
        way: choosing_strength.Chosen(*numbers)
        for way, numbers in zip(row["ways"], row["chosen"], strict=True)
    }
    assert chosen[choosing_strength.LEAST].false_positives > 20
    assert chosen[choosing_strength.LEAST].false_negatives == 0
    assert chosen[choosing_strength.REFITTED].false_positives <= 1
    assert chosen[choosing_strength.REFITTED].false_negatives == 0
    assert chosen[choosing_strength.STABLE].false_positives == 0


@pytest.mark.slow
def test_ranks_leave_out_saturated_fits_and_untuned_strengths():
    # Strengths, the last untuned, by two folds and all samples.
    test = np.array([3.0, 2.0, 1.0, 0.5])
    found = _sweeps.Fits(
        validation=np.array([[3, 4, 0], [1, 2, 0], [2, 3, 0], [0, 0, 0.0]]),
        test=np.stack([test] * 3, axis=1),
        likelihood=np.array([[0, 0, 50], [0, 0, 30], [0, 0, -900], [0, 0, 0.0]]),
        nonzeros=np.array([[0, 0, 0], [0, 0, 3], [0, 0, 9], [0, 0, 9]]),
        weights=np.zeros((4, 3, 10)),
    )
    places = choosing_strength.indices(found, samples=12, candidates=10)
    assert places[choosing_strength.LEAST] == places[choosing_strength.AIC] == 1
    assert places[choosing_strength.BEST] == 2 and places[choosing_strength.WORST] == 0
    assert places[choosing_strength.UNTUNED] == 3


@pytest.mark.release
def test_all_ways_choose_alike_in_a_quick_run_of_warm_starts(tmp_path):
    record = run(
        warm_starts, warm_starts.QUICK, tmp_path, quick=True, stream=io.StringIO()
    )
    assert_figure_shows_its_rows(warm_starts, warm_starts.QUICK, tmp_path)
    errors = [row["test_error"] for row in record["table"]]
    # Fits of three orders, to the tolerance of the quick run.
    assert errors == pytest.approx([errors[0]] * 3, rel=1e-3)
