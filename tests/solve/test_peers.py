"""Choices of scikit-learn on real data, by jaxreg in a few lines.

As long as scikit-learn's are converged to 1e-8: the strength within a step of the
grid, the error of cross-validation to 1e-3, the support exactly.
"""

import warnings

import numpy as np
import pytest
from sklearn import datasets, linear_model, model_selection

import jaxreg
from jaxreg import model_selection as ms
from jaxreg.solve import linear

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("x64")]

FOLDS = model_selection.KFold(5)


def masks_of(x):
    """The same folds as masks."""
    masks = np.zeros((5, len(x)), bool)
    for mask, (_, held_out) in zip(masks, FOLDS.split(x), strict=True):
        mask[held_out] = True
    return masks


def standard(x):
    """Columns of mean 0 and variance 1 that vary, so that folds share their scale."""
    x = x[:, x.std(axis=0) > 0]
    return (x - x.mean(axis=0)) / x.std(axis=0)


def assert_same_choice(strengths, curve, theirs):
    """`theirs`: errors at each strength."""
    assert abs(int(curve.least) - int(np.argmin(theirs))) <= 1
    np.testing.assert_allclose(curve.mean, theirs, rtol=1e-3)


def gap_of(x, y, strength, w, intercept):
    """The duality gap of a lasso over its loss at zero; y and x are centred."""
    x, y = x - x.mean(axis=0), y - y.mean()
    residual = y - x @ w
    dual = residual * min(1, strength * len(y) / np.abs(x.T @ residual).max())
    primal = residual @ residual / 2 + len(y) * strength * np.abs(w).sum()
    return (primal - (y @ y - (y - dual) @ (y - dual)) / 2) / (y @ y / 2)


def regressions():
    """Features, answers, and where the grid ends."""
    options = {"n_informative": 10, "noise": 5.0, "random_state": 0}
    wide = datasets.make_regression(n_samples=100, n_features=1000, **options)
    diabetes = datasets.load_diabetes(return_X_y=True)
    return {"diabetes": (*diabetes, 1e-3), "wide": (*wide, 5e-2)}


@pytest.mark.parametrize("name", regressions())
def test_the_choice_of_lasso_cv(name):
    x, y, ratio = regressions()[name]
    x, count = standard(x), 10
    path = ms.path(linear(x, y, standardise=False), jaxreg.L1(1.0), count=count,
                   ratio=ratio, tolerance=1e-7)  # fmt: skip
    curve = ms.cross_validate(path, masks_of(x))
    alphas = np.asarray(path.strengths)
    lasso = linear_model.LassoCV(alphas=alphas, cv=FOLDS, tol=1e-8, max_iter=100_000)
    theirs = lasso.fit(x, y)
    assert_same_choice(alphas, curve, theirs.mse_path_.mean(axis=1))
    best = list(alphas).index(theirs.alpha_)
    support = np.asarray(path.coefficients[best]) != 0
    np.testing.assert_array_equal(support, theirs.coef_ != 0)
    for strength, w, b in zip(alphas, path.coefficients, path.intercepts, strict=True):
        # No fit says that it converged with a gap above ten times the tolerance.
        assert gap_of(x, y, strength, np.asarray(w), b) <= 1e-6
    assert path.converged.all()


@pytest.mark.release
def test_the_choice_of_logistic_regression_cv():
    x, y = datasets.load_breast_cancer(return_X_y=True)
    x = standard(x)
    path = ms.path(linear(x, y, family="binomial", standardise=False), jaxreg.L1(1.0),
                   count=4, ratio=1e-2, tolerance=1e-7)  # fmt: skip
    curve = ms.cross_validate(path, masks_of(x))
    errors, supports = [], []
    for strength in np.asarray(path.strengths):
        model = linear_model.LogisticRegression(
            C=1 / (strength * len(y)), l1_ratio=1.0, solver="saga", tol=1e-8,
            max_iter=200_000,
        )  # fmt: skip
        # saga weighs the mean loss of a fold by its samples.
        losses = []
        for train, held_out in FOLDS.split(x):
            model.set_params(C=1 / (strength * len(train)))
            shares = model.fit(x[train], y[train]).predict_proba(x[held_out])
            losses.append(-2 * np.log(shares[range(len(held_out)), y[held_out]]).mean())
        errors.append(np.mean(losses))
        model.set_params(C=1 / (strength * len(y)))
        supports.append(model.fit(x, y).coef_[0] != 0)
    assert int(curve.least) == int(np.argmin(errors))
    # Where all weights are zero saga stops after 6 steps, with a larger objective.
    np.testing.assert_allclose(curve.mean[1:], errors[1:], rtol=1e-3)
    found = np.asarray(path.coefficients) != 0
    np.testing.assert_array_equal(found[1:], supports[1:])


@pytest.mark.release
def test_the_choice_of_multi_task_lasso_cv():
    """Digits as ten outputs, a group per pixel."""
    x, labels = datasets.load_digits(return_X_y=True)
    x, y = standard(x[:300]), np.eye(10)[labels[:300]]
    outputs = y.shape[1]
    penalty = jaxreg.GroupLasso.from_sklearn(1.0, outputs)
    path = ms.path(linear(x, y, standardise=False), penalty, count=6, ratio=5e-2,
                   tolerance=1e-7)  # fmt: skip
    curve = ms.cross_validate(path, masks_of(x))
    alphas = np.asarray(path.strengths)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        theirs = linear_model.MultiTaskLassoCV(
            alphas=alphas, cv=FOLDS, tol=1e-8, max_iter=100_000
        ).fit(x, y)
    # Its error is a mean over outputs, the deviance their sum.
    assert_same_choice(alphas, curve, outputs * theirs.mse_path_.mean(axis=1))
    best = list(alphas).index(theirs.alpha_)
    support = np.any(np.asarray(path.coefficients[best]) != 0, axis=1)
    np.testing.assert_array_equal(support, np.any(theirs.coef_ != 0, axis=0))
