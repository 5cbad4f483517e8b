"""Choices from a sweep: against scikit-learn, NumPy and counts by hand."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import datasets, linear_model

import jaxreg

ms = jaxreg.model_selection


@pytest.mark.parametrize("seed", range(20))
def test_one_standard_error_is_the_strongest_strength_within_it(seed):
    generator = np.random.default_rng(seed)
    errors = generator.normal(size=(8, 5)) + generator.normal(size=(8, 1))
    curve = jax.jit(jaxreg.model_selection.validation_curve)(errors)
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
    curve = jaxreg.model_selection.validation_curve(errors)
    assert (curve.least, curve.one_standard_error) == (3, 3)
    assert np.isnan(curve.mean[0])


@pytest.mark.parametrize("error", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("cells", [1, 2])
@pytest.mark.parametrize("strength", range(4))
def test_an_error_that_is_not_finite_is_not_chosen(error, cells, strength):
    errors = np.array([[0.9, 0.8], [0.41, 0.4], [0.42, 0.37], [0.5, 0.4]])
    errors[strength, :cells] = error
    curve = jax.jit(jaxreg.model_selection.validation_curve)(errors)
    least = 1 if strength == 2 else 2
    within = 2 if strength == 1 else 1
    assert (curve.least, curve.one_standard_error) == (least, within)


def test_a_spread_that_overflows_chooses_no_diverged_strength():
    errors = jnp.array([[np.nan, 1.0], [np.inf, 1.0], [1e30, -1e30]])
    curve = jaxreg.model_selection.validation_curve(errors)
    assert (curve.least, curve.one_standard_error) == (2, 2)


def test_errors_of_half_precision_are_averaged_in_float32():
    # In float16 both means are 1, and the spread of the others overflows.
    close = jnp.array([[1.0, 1.0], [1.0, 0.999]], jnp.float16)
    wide = jnp.array([[1000.0, 9000.0], [500.0, 4000.0]], jnp.float16)
    assert jaxreg.model_selection.validation_curve(close).least == 1
    np.testing.assert_allclose(
        jaxreg.model_selection.validation_curve(wide).standard_error,
        [4000, 1750],
        rtol=1e-6,
    )


def test_a_curve_takes_strengths_on_an_explicit_mesh():
    mesh = jax.sharding.AbstractMesh((4,), ("at",), (jax.sharding.AxisType.Explicit,))
    spread = jax.NamedSharding(mesh, jax.P("at"))
    errors = jax.ShapeDtypeStruct((8, 5), np.float32, sharding=spread)
    with jax.sharding.use_abstract_mesh(mesh):
        curve = jax.eval_shape(jaxreg.model_selection.validation_curve, errors)
    assert curve.mean.shape == (8,) and curve.one_standard_error.shape == ()


@pytest.mark.parametrize("criterion", ["aic", "bic"])
@pytest.mark.slow
def test_aic_and_bic_are_those_of_lasso_lars_ic(criterion, x64):
    x, y = datasets.load_diabetes(return_X_y=True)
    theirs = linear_model.LassoLarsIC(criterion, noise_variance=3000.0).fit(x, y)
    _, _, path = linear_model.lars_path(x, y - y.mean(), method="lasso")
    rss = ((y - y.mean())[:, None] - x @ path).__pow__(2).sum(axis=0)
    likelihood = len(y) / 2 * np.log(2 * np.pi * 3000.0) + rss / (2 * 3000.0)
    nonzeros = (path != 0).sum(axis=0)
    ours = jaxreg.model_selection.information_criteria(
        likelihood, nonzeros, len(y), x.shape[1]
    )
    np.testing.assert_allclose(getattr(ours, criterion), theirs.criterion_, rtol=1e-10)


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_ebic_counts_the_sets_of_that_size(weight, x64):
    for candidates, nonzeros in itertools.product([5, 40], [0, 1, 3, 5]):
        found = jaxreg.model_selection.information_criteria(
            7.0, nonzeros, 20, candidates, weight
        )
        sets = math.comb(candidates, nonzeros)
        wanted = 14 + nonzeros * math.log(20) + 2 * weight * math.log(sets)
        # betaln of JAX has nine digits.
        assert float(found.ebic) == pytest.approx(wanted, rel=1e-9)
        assert float(found.bic) == pytest.approx(14 + nonzeros * math.log(20))


@pytest.mark.parametrize("nonzeros", [0, 1, 5, 1000, 10**7])
def test_ebic_counts_sets_of_a_large_network_in_float32(nonzeros):
    # The difference of two log factorials would lose this: log 1e8! is 1.7e9.
    found = jaxreg.model_selection.information_criteria(0.0, nonzeros, 1, 10**8)
    wanted = 2 * (
        math.lgamma(1e8 + 1)
        - math.lgamma(nonzeros + 1)
        - math.lgamma(1e8 - nonzeros + 1)
    )
    assert float(found.ebic) == pytest.approx(wanted, rel=1e-5, abs=1e-5)


def test_criteria_take_more_candidates_than_an_int32_counts():
    counts = jnp.array([1, 2])
    found = jaxreg.model_selection.information_criteria(0.0, counts, 1, 3 * 10**9)
    wanted = [2 * math.log(math.comb(3 * 10**9, count)) for count in (1, 2)]
    np.testing.assert_allclose(found.ebic, wanted, rtol=1e-5)


def test_a_stable_unit_is_frequent_at_some_allowed_strength():
    generator = np.random.default_rng(0)
    units = generator.random((6, 30, 40)) < np.linspace(0.02, 0.6, 6)[:, None, None]
    units[1:, :, :2] = True
    found = jax.jit(jaxreg.model_selection.stability_selection)(units, 0.8, 4.0)
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


def test_nothing_is_stable_if_too_much_is_selected_at_first():
    found = jaxreg.model_selection.stability_selection(jnp.ones((2, 4, 10)))
    assert found.strengths_used == 0
    assert not found.is_stable.any() and found.bound == 0


@pytest.mark.parametrize("fits", [20, 50, 100, 200])
@pytest.mark.parametrize("percent", [55, 60, 75, 80, 85, 90, 95, 100])
@pytest.mark.slow
def test_a_unit_at_the_threshold_is_stable_inside_jit_too(fits, percent):
    count = percent * fits // 100
    if 100 * count != percent * fits:
        count += 1
    units = np.zeros((1, fits, 200), bool)
    units[0, :count, 0], units[0, : count - 1, 1] = True, True
    for select in (
        jaxreg.model_selection.stability_selection,
        jax.jit(jaxreg.model_selection.stability_selection),
    ):
        found = select(units, percent / 100)
        np.testing.assert_array_equal(np.flatnonzero(found.is_stable), [0])


def test_a_bound_at_the_number_allowed_is_used_inside_jit_too():
    units = np.zeros((1, 10, 20), bool)
    units[0, :, :4] = True  # 4^2 / ((2 * 0.9 - 1) * 20) = 1
    for select in (
        jaxreg.model_selection.stability_selection,
        jax.jit(jaxreg.model_selection.stability_selection),
    ):
        assert select(units, 0.9, 1.0).strengths_used == 1


@pytest.mark.slow
def test_the_bound_of_stability_selection_holds_for_noise():
    """Units without effect, selected at random: no more are stable than it says."""
    generator = np.random.default_rng(1)
    stable, bounds = [], []
    for _ in range(200):
        order = np.argsort(generator.random((50, 60)), axis=1)
        units = order[None] < np.arange(2, 22, 2)[:, None, None]
        found = jaxreg.model_selection.stability_selection(units, 0.6, 1.0)
        stable.append(int(found.is_stable.sum()))
        bounds.append(float(found.bound))
    assert 0 < np.mean(bounds) <= 1
    assert np.mean(stable) <= np.mean(bounds)


@pytest.mark.parametrize("seed", range(10))
def test_the_front_is_what_no_other_model_beats(seed):
    # Few values, so that there are ties.
    sparsity, accuracy = np.random.default_rng(seed).integers(0, 5, (2, 12))
    front = jax.jit(jaxreg.model_selection.pareto_front)(sparsity, accuracy)
    points = list(zip(sparsity, accuracy, strict=True))
    wanted = [
        not any(a >= s and b >= t and (a, b) != (s, t) for a, b in points)
        for s, t in points
    ]
    np.testing.assert_array_equal(front, wanted)


def test_nan_is_not_on_the_front_and_beats_nothing():
    front = jaxreg.model_selection.pareto_front(
        jnp.array([0.1, 0.9, 0.5]), jnp.array([0.5, np.nan, 0.4])
    )
    np.testing.assert_array_equal(front, [True, False, True])


def test_errors_of_fits_that_did_not_converge_are_not_chosen():
    errors = jnp.array([[0.3, 0.4], [0.1, 0.1], [0.2, 0.3]])
    converged = jnp.array([[True, True], [True, False], [True, True]])
    curve = jax.jit(ms.validation_curve)(errors, converged)
    assert (curve.least, curve.one_standard_error) == (2, 2)
    np.testing.assert_array_equal(np.isnan(curve.mean), [False, True, False])


def test_criteria_of_fits_that_did_not_converge_are_nan():
    converged = jnp.array([True, False])
    scores = ms.information_criteria(jnp.ones(2), 1, 10, 5, converged=converged)
    for score in scores:
        np.testing.assert_array_equal(np.isnan(score), [False, True])


def test_a_pair_of_which_one_fit_did_not_converge_is_left_out():
    """The result is that of the other nine pairs."""
    units = np.random.default_rng(0).normal(size=(3, 20, 30))
    units = units * (np.abs(units) > np.array([2.9, 2.7, 2.5])[:, None, None])
    units[:, :, 0] = 1
    converged = np.ones((3, 20), bool)
    converged[1, 7] = False
    found = ms.stability_selection(units, converged=converged)
    rest = ms.stability_selection(np.delete(units, [6, 7], axis=1))
    assert found.strengths_used > 0
    jax.tree.map(np.testing.assert_allclose, found, rest)


@pytest.mark.parametrize(
    "converged, text",
    [
        (np.arange(20) > 3, "2 of 10 pairs of fits did not converge; allowed: a tenth"),
        (np.ones(19, bool), "shape \\(1, 19\\) .* allowed: booleans of shape"),
        (np.ones(20), "dtype float32; allowed: booleans"),
    ],
    ids=["too many", "another shape", "numbers"],
)
def test_flags_of_stability_selection_are_checked(converged, text):
    with pytest.raises(ValueError, match=text):
        ms.stability_selection(np.ones((1, 20, 3)), converged=converged[None])
