"""Paths and cross-validation of linear models, beside scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import datasets, linear_model

import jaxreg
from jaxreg import model_selection as ms
from jaxreg.solve import ConvergenceWarning, linear

pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture
def diabetes():
    return datasets.load_diabetes(return_X_y=True)


def splits(folds):
    return [(np.flatnonzero(~fold), np.flatnonzero(fold)) for fold in np.asarray(folds)]


@pytest.mark.slow
def test_the_strength_of_diabetes_is_that_of_lasso_cv(diabetes):
    x, y = diabetes
    problem = linear(x, y, standardise=False)
    path = ms.path(problem, jaxreg.L1(1.0), count=50, ratio=1e-3, tolerance=1e-7)
    folds = ms.fold_masks(jax.random.key(0), 5, len(y))
    choice = ms.cross_validate(path, folds)
    theirs = linear_model.LassoCV(
        alphas=np.asarray(path.strengths), cv=splits(folds), tol=1e-10, max_iter=10**6
    ).fit(x, y)
    assert float(path.strengths[choice.least]) == pytest.approx(theirs.alpha_)
    errors = theirs.mse_path_.mean(axis=1)
    np.testing.assert_allclose(choice.mean, errors, rtol=1e-6)
    coefficients = path.coefficients[choice.least]
    np.testing.assert_allclose(coefficients, theirs.coef_, atol=1e-4)
    np.testing.assert_array_equal(coefficients == 0, theirs.coef_ == 0)
    assert float(path.intercepts[choice.least]) == pytest.approx(theirs.intercept_)
    assert path.converged.all() and path.nonzeros[0] == 0
    assert float(path.deviance_ratio[choice.least]) == pytest.approx(theirs.score(x, y))


@pytest.mark.slow
def test_the_grid_starts_where_the_free_features_are_fitted(diabetes):
    x, y = diabetes
    weights = np.r_[0.0, np.ones(x.shape[1] - 1)]
    penalty = jaxreg.weighted(jaxreg.L1(1.0), weights)
    path = ms.path(linear(x, y), penalty, count=3, ratio=0.9, tolerance=1e-8)
    standard = (x - x.mean(axis=0)) / x.std(axis=0)
    rest = y - np.polyval(np.polyfit(x[:, 0], y, 1), x[:, 0])
    largest = np.abs(standard[:, 1:].T @ rest).max() / len(y)
    assert float(path.strengths[0]) == pytest.approx(largest, rel=1e-6)
    assert path.nonzeros[0] == 1 and path.nonzeros[-1] > 1


@pytest.mark.slow
def test_a_metric_of_the_user_and_classes_by_logistic_regression():
    x, y = datasets.load_breast_cancer(return_X_y=True)
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    strengths = np.array([0.1, 0.03, 0.01])
    problem = linear(x, y, family="binomial", standardise=False)
    path = ms.path(problem, jaxreg.L1(1.0), strengths=strengths, tolerance=1e-7)
    folds = ms.fold_masks(jax.random.key(0), 4, len(y), labels=y)
    choice = ms.cross_validate(path, folds, metric=lambda p, y: (p > 0) != (y > 0))
    expected = []
    for strength in strengths:
        errors = []
        for train, test in splits(folds):
            model = linear_model.LogisticRegression(
                C=1 / (len(train) * strength),
                l1_ratio=1.0,
                solver="saga",
                tol=1e-6,
                max_iter=50_000,
            ).fit(x[train], y[train])
            errors.append(1 - model.score(x[test], y[test]))
        expected.append(np.mean(errors))
    np.testing.assert_allclose(choice.mean, expected, atol=1e-9)


@pytest.mark.slow
def test_fits_that_did_not_converge_are_counted(diabetes, monkeypatch):
    monkeypatch.setattr(ms._path, "_MAX_STEPS", 2)
    x, y = diabetes
    with pytest.warns(
        ConvergenceWarning, match=r"path: \d+ of 5 fits did not converge"
    ):
        path = ms.path(linear(x[:, :7], y), jaxreg.L1(1.0), count=5, tolerance=1e-9)
    assert not path.converged[-1] and path.stationarity[-1] > 1e-9


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"problem": lambda w: w}, TypeError, "allowed: that of"),
        ({"penalty": jaxreg.L2(1.0)}, ValueError, "largest strength is inf"),
        ({"strengths": 0.1}, ValueError, r"strengths has shape \(\)"),
        ({"strengths": [-0.1]}, ValueError, "allowed: finite numbers >= 0"),
        ({"tolerance": 0.0}, ValueError, "allowed: a finite number > 0"),
    ],
)
def test_bad_input_of_path_names_the_argument(change, error, text):
    problem = linear(np.eye(4), np.arange(4.0), standardise=False)
    arguments = {"problem": problem, "penalty": jaxreg.L1(1.0)} | change
    with pytest.raises(error, match=text):
        ms.path(**arguments)


def test_masks_of_another_shape_are_refused():
    problem = linear(np.eye(4), np.arange(4.0), standardise=False)
    path = ms.path(problem, jaxreg.L1(1.0), strengths=[0.1], tolerance=1e-3)
    with pytest.raises(ValueError, match=r"allowed: booleans of shape \(folds, 4\)"):
        ms.cross_validate(path, jnp.ones((2, 3), bool))
    with pytest.raises(ValueError, match="holds out all samples or none"):
        ms.cross_validate(path, jnp.ones((2, 4), bool))
