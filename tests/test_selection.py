"""Choices from a sweep: against scikit-learn, NumPy and counts by hand."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import datasets, linear_model

import jaxreg


@pytest.mark.parametrize("seed", range(20))
def test_one_standard_error_is_the_strongest_strength_within_it(seed):
    generator = np.random.default_rng(seed)
    errors = generator.normal(size=(8, 5)) + generator.normal(size=(8, 1))
    curve = jax.jit(jaxreg.validation_curve)(errors)
    mean = errors.mean(axis=1)
    spread = errors.std(axis=1, ddof=1) / 5**0.5
    np.testing.assert_allclose(curve.mean, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(curve.standard_error, spread, rtol=1e-5)
    best = min(range(8), key=lambda place: mean[place])
    limit = mean[best] + spread[best]
    within = [place for place in range(8) if mean[place] <= limit]
    assert (curve.least, curve.one_standard_error) == (best, within[0])


def test_a_strength_that_diverged_is_not_chosen():
    errors = jnp.array([[np.nan, 0.1], [np.inf, np.inf], [0.3, 0.4], [0.2, 0.3]])
    curve = jaxreg.validation_curve(errors)
    assert (curve.least, curve.one_standard_error) == (3, 3)
    assert np.isnan(curve.mean[0])


@pytest.mark.parametrize("criterion", ["aic", "bic"])
def test_aic_and_bic_are_those_of_lasso_lars_ic(criterion, x64):
    x, y = datasets.load_diabetes(return_X_y=True)
    theirs = linear_model.LassoLarsIC(criterion, noise_variance=3000.0).fit(x, y)
    _, _, path = linear_model.lars_path(x, y - y.mean(), method="lasso")
    rss = ((y - y.mean())[:, None] - x @ path).__pow__(2).sum(axis=0)
    likelihood = len(y) / 2 * np.log(2 * np.pi * 3000.0) + rss / (2 * 3000.0)
    nonzeros = (path != 0).sum(axis=0)
    ours = jaxreg.information_criteria(likelihood, nonzeros, len(y), x.shape[1])
    np.testing.assert_allclose(getattr(ours, criterion), theirs.criterion_, rtol=1e-10)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_ebic_counts_the_sets_of_that_size(weight, x64):
    for candidates, nonzeros in itertools.product([5, 40], [0, 1, 3, 5]):
        found = jaxreg.information_criteria(7.0, nonzeros, 20, candidates, weight)
        sets = math.comb(candidates, nonzeros)
        wanted = 14 + nonzeros * math.log(20) + 2 * weight * math.log(sets)
        assert float(found.ebic) == pytest.approx(wanted, rel=1e-12)
        assert float(found.bic) == pytest.approx(14 + nonzeros * math.log(20))


def test_a_stable_unit_is_one_of_high_frequency_at_some_allowed_strength():
    generator = np.random.default_rng(0)
    units = generator.random((6, 30, 40)) < np.linspace(0.02, 0.6, 6)[:, None, None]
    units[1:, :, :2] = True
    found = jax.jit(jaxreg.stability_selection)(units, 0.8, 4.0)
    used, bound = 0, 0.0
    for end in range(1, 7):
        selected = [
            set(np.flatnonzero(units[:end, fit].any(axis=0))) for fit in range(30)
        ]
        average = np.mean([len(chosen) for chosen in selected])
        if average**2 / (0.6 * 40) <= 4:
            used, bound = end, average**2 / (0.6 * 40)
    assert 1 < used < 6
    assert (found.strengths_used, float(found.bound)) == (used, pytest.approx(bound))
    frequency = units[:used].mean(axis=1).max(axis=0)
    np.testing.assert_allclose(found.frequency, frequency, rtol=1e-6)
    np.testing.assert_array_equal(np.flatnonzero(found.is_stable), [0, 1])


def test_a_first_strength_that_selects_too_much_leaves_nothing_stable():
    found = jaxreg.stability_selection(jnp.ones((2, 4, 10)))
    assert found.strengths_used == 0
    assert not found.is_stable.any() and found.bound == 0


def test_the_bound_of_stability_selection_holds_for_noise():
    """Units without effect, selected at random: no more are stable than it says."""
    generator = np.random.default_rng(1)
    stable, bounds = [], []
    for _ in range(200):
        order = np.argsort(generator.random((50, 60)), axis=1)
        units = order[None] < np.arange(2, 22, 2)[:, None, None]
        found = jaxreg.stability_selection(units, 0.6, 1.0)
        stable.append(int(found.is_stable.sum()))
        bounds.append(float(found.bound))
    assert 0 < np.mean(bounds) <= 1
    assert np.mean(stable) <= np.mean(bounds)


@pytest.mark.parametrize("seed", range(10))
def test_the_front_is_what_no_other_model_beats(seed):
    # Few values, so that there are ties.
    sparsity, accuracy = np.random.default_rng(seed).integers(0, 5, (2, 12))
    front = jax.jit(jaxreg.pareto_front)(sparsity, accuracy)
    points = list(zip(sparsity, accuracy, strict=True))
    wanted = [
        not any(a >= s and b >= t and (a, b) != (s, t) for a, b in points)
        for s, t in points
    ]
    np.testing.assert_array_equal(front, wanted)


def test_nan_is_not_on_the_front_and_beats_nothing():
    front = jaxreg.pareto_front(
        jnp.array([0.1, 0.9, 0.5]), jnp.array([0.5, np.nan, 0.4])
    )
    np.testing.assert_array_equal(front, [True, False, True])
