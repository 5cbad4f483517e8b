"""The examples run, and what they claim is true."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import datasets, linear_model
from sklearn.model_selection import GridSearchCV, cross_val_score

from examples import (
    from_keras_and_pytorch,
    lasso_path_sklearn,
    logistic_path,
    smaller_network_nnx,
    strength_per_group,
    wanted_sparsity_nnx,
)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
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
@pytest.mark.usefixtures("x64")
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
@pytest.mark.usefixtures("x64")
def test_a_strength_per_group_beats_the_grid(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        uniform, best = strength_per_group.main()
    assert best < 0.95 * uniform
    assert "a strength per group" in capsys.readouterr().out


@pytest.mark.slow
def test_a_fine_tuned_network_keeps_exactly_95_percent_zeros(capsys):
    (zeros, accuracy), (held, refit) = wanted_sparsity_nnx.main()
    kernels = 64 * 100 + 100 * 10
    assert zeros == held == pytest.approx(0.95, abs=1 / kernels)
    assert accuracy > 0.93 and refit > 0.93
    assert "fine-tuned  95.00% zeros" in capsys.readouterr().out


@pytest.mark.slow
def test_a_third_of_the_weights_gives_the_same_accuracy(capsys):
    (before, accuracy), (after, same) = smaller_network_nnx.main()
    assert after < before / 3
    assert accuracy > 0.9 and same == accuracy
    assert f"compacted  {after:7,} parameters" in capsys.readouterr().out


@pytest.mark.slow
def test_the_logistic_path_agrees_with_scikit_learn(capsys):
    ours, theirs = logistic_path.main()
    np.testing.assert_array_equal(ours == 0, theirs == 0)
    np.testing.assert_allclose(ours, theirs, atol=0.01)
    assert 0 < (ours != 0).sum() < 15
    assert capsys.readouterr().out.startswith("Path: 30 binomial fits")


@pytest.mark.slow
def test_habits_of_keras_and_pytorch_get_their_zeros(capsys):
    results = from_keras_and_pytorch.main()
    for origin, zeros in {"Keras": 0.9, "PyTorch": 0.7}.items():
        share, objective = results[origin, "regularize"]
        habit_share, habit_objective = results[origin, "in the loss"]
        assert share > zeros and habit_share == 0
        assert objective == pytest.approx(habit_objective, rel=0.2)
    assert "Keras    regularize" in capsys.readouterr().out
