"""The examples run, and what they claim is true."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import datasets, linear_model
from sklearn.model_selection import GridSearchCV, cross_val_score

from examples import lasso_path_sklearn, strength_per_group

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.slow
def test_the_estimator_serves_cross_val_score_and_grid_search():
    x, y = datasets.load_diabetes(return_X_y=True)
    # The columns have one standard deviation, that scikit-learn does not divide by.
    scale = x.std(axis=0)
    ours = lasso_path_sklearn.Lasso(2.0, tolerance=1e-8)
    theirs = linear_model.Lasso(2.0 * scale[0], tol=1e-10)
    folds = {"cv": 3}
    np.testing.assert_allclose(
        cross_val_score(ours, x, y, **folds),
        cross_val_score(theirs, x, y, **folds),
        atol=5e-3,  # Folds have other standard deviations than all samples.
    )
    search = GridSearchCV(ours, {"strength": [100.0, 2.0]}, **folds).fit(x, y)
    assert search.best_params_ == {"strength": 2.0}
    np.testing.assert_allclose(
        search.best_estimator_.coef_, theirs.fit(x, y).coef_, atol=1e-3
    )


@pytest.mark.slow
def test_the_gradient_by_20_strengths_is_that_of_differences():
    train, test = strength_per_group.make_data(jax.random.key(0))
    of_strengths = jax.jit(strength_per_group.validation)
    at = jnp.full(strength_per_group.GROUPS, jnp.log(0.1))
    slope = jax.jit(jax.grad(strength_per_group.validation))(at, train, test)
    small = 1e-4
    for index in (0, 3, 7):
        move = jnp.zeros_like(at).at[index].set(small)
        values = [of_strengths(at + sign * move, train, test) for sign in (1, -1)]
        difference = (values[0] - values[1]) / (2 * small)
        assert float(slope[index]) == pytest.approx(float(difference), abs=1e-5)
    assert float(jnp.max(jnp.abs(slope))) > 1e-3


@pytest.mark.slow
def test_a_strength_per_group_beats_the_grid(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        uniform, best = strength_per_group.main()
    assert best < 0.95 * uniform
    assert "a strength per group" in capsys.readouterr().out
