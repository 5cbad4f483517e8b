"""Linear models: families, intercepts, scales and weights, beside scikit-learn."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from sklearn import datasets, linear_model

import jaxreg
from jaxreg.solve import linear
from jaxreg.solve._working_set import solve_linear

pytestmark = pytest.mark.usefixtures("x64")

SAMPLES, FEATURES, TIGHT = 80, 12, 1e-9


@pytest.fixture
def data():
    generator = np.random.default_rng(0)
    x = 3 + generator.normal(size=(SAMPLES, FEATURES)) * np.linspace(0.2, 5, FEATURES)
    predictor = (x - 3) @ np.r_[2.0, -1.0, 0.5, np.zeros(FEATURES - 3)]
    return x, predictor + generator.normal(size=SAMPLES)


def fit(problem, penalty, **options):
    params = jaxreg.minimise(problem, penalty, tolerance=TIGHT, **options).params
    return params["coefficients"], params.get("intercept")


def test_the_lasso_has_intercept_and_scales_of_scikit_learn(data):
    x, y = data
    ours, intercept = fit(linear(x, y), jaxreg.L1(0.1))
    spread = x.std(axis=0)
    theirs = linear_model.Lasso(alpha=0.1, tol=1e-12).fit(x / spread, y)
    np.testing.assert_allclose(ours, theirs.coef_ / spread, atol=1e-8)
    assert float(intercept) == pytest.approx(theirs.intercept_, abs=1e-7)
    assert 0 < np.sum(ours == 0) < FEATURES


@pytest.mark.slow
def test_without_standardisation_and_intercept(data):
    x, y = data
    problem = linear(x, y, intercept=False, standardise=False)
    ours, intercept = fit(problem, jaxreg.ElasticNet(0.1, 0.05))
    theirs = linear_model.ElasticNet(
        alpha=0.2, l1_ratio=0.5, fit_intercept=False, tol=1e-12
    ).fit(x, y)
    np.testing.assert_allclose(ours, theirs.coef_, atol=1e-8)
    assert intercept is None


@pytest.mark.slow
def test_integer_weights_are_repeated_samples(data):
    x, y = data
    counts = np.arange(SAMPLES) % 3
    ours = fit(linear(x, y, sample_weight=counts), jaxreg.L1(0.1))
    repeated = linear(np.repeat(x, counts, axis=0), np.repeat(y, counts))
    theirs = fit(repeated, jaxreg.L1(0.1))
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-8)
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-8)


@pytest.mark.slow
def test_an_offset_is_what_it_adds_to_the_predictor(data):
    x, y = data
    shift = np.sin(np.arange(SAMPLES))
    ours = fit(linear(x, y, offset=shift), jaxreg.L1(0.1))
    theirs = fit(linear(x, y - shift), jaxreg.L1(0.1))
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-8)


@pytest.mark.slow
def test_a_constant_column_gets_the_coefficient_0(data):
    x, y = data
    x = np.concatenate([x, np.full((SAMPLES, 1), 1e6)], axis=1)
    ours, _ = fit(linear(x, y), jaxreg.L1(0.1))
    assert ours[-1] == 0
    np.testing.assert_allclose(ours[:-1], fit(linear(x[:, :-1], y), jaxreg.L1(0.1))[0])


def test_a_warm_start_is_in_the_units_of_x(data):
    problem = linear(*data)
    first = jaxreg.minimise(problem, jaxreg.L1(0.1), tolerance=TIGHT)
    again = jaxreg.minimise(problem, jaxreg.L1(0.1), first.params, tolerance=2 * TIGHT)
    assert again.steps == 0


@pytest.mark.slow
def test_weights_per_coefficient_leave_features_free(data):
    x, y = data
    weights = np.r_[0.0, np.ones(FEATURES - 1)]
    penalty = jaxreg.weighted(jaxreg.L1(1e3), weights)
    ours, intercept = fit(linear(x, y), penalty)
    slope, constant = np.polyfit(x[:, 0], y, 1)
    np.testing.assert_allclose(ours, np.r_[slope, np.zeros(FEATURES - 1)], atol=1e-8)
    assert float(intercept) == pytest.approx(constant, abs=1e-7)


@pytest.mark.parametrize(
    ("features", "strength"),
    [
        (7, 0.3),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in itertools.product([7, 300, 2300], [0.3, 0.02])
            if case != (7, 0.3)
        ),
    ],
)
def test_working_sets_find_what_all_features_find(features, strength):
    """The sizes lie below a chunk, above it, and above the capacity."""
    generator = np.random.default_rng(1)
    x = generator.normal(size=(SAMPLES, features))
    y = x[:, 0] - x[:, 1] + generator.normal(size=SAMPLES)
    problem = linear(x, y, intercept=False, standardise=False)
    found = jaxreg.minimise(problem, jaxreg.L1(strength), tolerance=TIGHT)
    assert found.converged
    ours = np.asarray(found.params["coefficients"])
    residual = x @ ours - y
    # The optimality conditions, and the duality gap in plain NumPy.
    dual = residual * min(1, strength * SAMPLES / np.abs(x.T @ residual).max())
    primal = residual @ residual / (2 * SAMPLES) + strength * np.abs(ours).sum()
    gap = primal + (dual @ dual / 2 + dual @ y) / SAMPLES
    assert 0 <= gap + 1e-12 <= 1e-7


@pytest.mark.slow
@pytest.mark.parametrize("features", [600, 2300])
def test_a_support_above_the_capacity_is_solved_with_all(features):
    """The sizes lie above the first capacity, and above the last."""
    generator = np.random.default_rng(2)
    samples = 40
    x, y = generator.normal(size=(samples, features)), generator.normal(size=samples)
    # A ridge keeps all features.
    problem = linear(x, y, intercept=False, standardise=False)
    found = jaxreg.minimise(problem, jaxreg.L2(0.05), tolerance=1e-8)
    gram = x @ x.T / samples + 0.1 * np.eye(samples)
    ridge = x.T @ np.linalg.solve(gram, y / samples)
    np.testing.assert_allclose(found.params["coefficients"], ridge, atol=1e-8)


@pytest.mark.slow
def test_bounds_per_coefficient_go_with_their_features(data):
    """Few of the bounds are met, so that the set holds them in an order of its own."""
    x, y = data
    lower = jnp.linspace(-1.0, 0.0, FEATURES)
    box = jaxreg.Box(lower, lower + 0.3)
    problem = linear(x, y, intercept=False, standardise=False)
    ours = jaxreg.minimise(problem, box, tolerance=TIGHT).params["coefficients"]
    bounds = (np.asarray(lower), np.asarray(lower) + 0.3)
    theirs = scipy.optimize.lsq_linear(np.asarray(x), np.asarray(y), bounds, tol=1e-14)
    np.testing.assert_allclose(ours, theirs.x, atol=1e-7)


@pytest.mark.slow
def test_breast_cancer_is_that_of_logistic_regression():
    x, y = datasets.load_breast_cancer(return_X_y=True)
    strength = 0.02
    ours, intercept = fit(linear(x, y, family="binomial"), jaxreg.L1(strength))
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    theirs = linear_model.LogisticRegression(
        C=1 / (len(y) * strength),
        l1_ratio=1.0,
        solver="saga",
        tol=1e-8,
        max_iter=100_000,
    ).fit(scaled, y)
    np.testing.assert_allclose(ours * x.std(axis=0), theirs.coef_[0], atol=1e-5)
    shift = float(ours @ x.mean(axis=0))
    assert float(intercept) + shift == pytest.approx(theirs.intercept_[0], abs=1e-5)


@pytest.mark.slow
def test_counts_are_those_of_poisson_regression(data):
    x, y = data
    counts = np.random.default_rng(1).poisson(np.exp(y / 8))
    problem = linear(x, counts, family="poisson", standardise=False)
    ours, intercept = fit(problem, jaxreg.L2(0.05))
    theirs = linear_model.PoissonRegressor(alpha=0.1, tol=1e-10, max_iter=10_000)
    theirs.fit(x, counts)
    np.testing.assert_allclose(ours, theirs.coef_, atol=1e-6)
    assert float(intercept) == pytest.approx(theirs.intercept_, abs=1e-6)


@pytest.mark.slow
def test_classes_are_those_of_multinomial_regression():
    x, labels = datasets.load_iris(return_X_y=True)
    problem = linear(x, labels, family="multinomial", standardise=False)
    ours, _ = fit(problem, jaxreg.L2(0.01))
    theirs = linear_model.LogisticRegression(
        C=1 / (len(x) * 0.02), tol=1e-10, max_iter=10_000
    ).fit(x, labels)
    np.testing.assert_allclose(ours, theirs.coef_.T, atol=1e-5)


@pytest.mark.slow
def test_several_outputs_share_their_features():
    generator = np.random.default_rng(3)
    x = generator.normal(size=(SAMPLES, FEATURES))
    y = x[:, :2] @ generator.normal(size=(2, 3)) + generator.normal(size=(SAMPLES, 3))
    # scikit-learn's penalty has no factor for the size of a group.
    penalty = jaxreg.GroupLasso(0.1 / 3**0.5, group_axis=0)
    ours, intercept = fit(linear(x, y, standardise=False), penalty)
    theirs = linear_model.MultiTaskLasso(alpha=0.1, tol=1e-12).fit(x, y)
    np.testing.assert_allclose(ours, theirs.coef_.T, atol=1e-7)
    np.testing.assert_allclose(intercept, theirs.intercept_, atol=1e-7)


def partial_likelihood(predictor, time, event, weights):
    """Minus the log partial likelihood with Breslow's ties, by its definition."""
    total = 0.0
    for index in np.flatnonzero(event):
        at_risk = time >= time[index]
        risk = np.sum(weights[at_risk] * np.exp(predictor[at_risk]))
        total += weights[index] * (np.log(risk) - predictor[index])
    return total / weights.sum()


@pytest.mark.slow
def test_the_partial_likelihood_is_its_definition_with_ties():
    generator = np.random.default_rng(4)
    x = generator.normal(size=(30, 3))
    time, event = generator.integers(1, 8, 30), generator.integers(0, 2, 30)
    weights = generator.integers(0, 3, 30) * 1.0
    problem = linear(
        x, (time, event), family="cox", intercept=False, sample_weight=weights
    )
    coefficients = generator.normal(size=3)
    kept = weights > 0
    expected = partial_likelihood(
        (x @ coefficients)[kept], time[kept], event[kept], weights[kept]
    )
    loss = problem.loss({"coefficients": jnp.asarray(coefficients)})
    assert float(loss) == pytest.approx(expected, rel=1e-12)


@pytest.mark.slow
def test_a_function_is_a_family(data):
    x, y = data

    def huber(predictor, y):
        gap = jnp.abs(predictor - y)
        return jnp.where(gap < 1.35, gap**2 / 2, 1.35 * gap - 1.35**2 / 2)

    ours, intercept = fit(
        linear(x, y, family=huber, standardise=False), jaxreg.L2(0.1 / SAMPLES)
    )

    def total(vector):
        problem = linear(x, y, family=huber, standardise=False)
        params = {"coefficients": vector[1:], "intercept": vector[0]}
        return problem.loss(params) + 0.1 / SAMPLES * jnp.sum(vector[1:] ** 2)

    slopes = jax.grad(total)(jnp.r_[intercept, ours])
    np.testing.assert_allclose(slopes, 0, atol=1e-7)


@pytest.mark.slow
def test_derivatives_pass_standardisation(data):
    x, y = map(jnp.asarray, data)

    def first(shift):
        problem = linear(x.at[:, 0].multiply(1 + shift), y)
        params = jaxreg.minimise(problem, jaxreg.L1(0.1), tolerance=1e-11).params
        return params["coefficients"][0]

    # Standardised, the fit does not depend on the scale of a column.
    assert float(jax.grad(first)(0.0)) == pytest.approx(-float(first(0.0)), rel=1e-6)


X, Y = np.ones((4, 2)), np.arange(4.0)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"x": np.ones(4)}, r"x has shape \(4,\); allowed: \(samples, features\)"),
        ({"x": X + np.nan}, "x holds numbers that are not finite"),
        ({"y": np.ones(3)}, r"y has shape \(3,\), and x has 4 samples"),
        ({"y": Y + np.inf}, "y holds numbers that are not finite"),
        ({"family": "gamma"}, "family is 'gamma'; allowed: gaussian, binomial"),
        ({"family": "binomial"}, "values from 0 to 3; allowed: 0 and 1"),
        ({"family": "poisson", "y": Y - 1}, "values from -1 to 2; allowed: counts"),
        ({"family": "multinomial", "y": Y - 1}, "allowed: labels 0, 1"),
        ({"family": "cox"}, "allowed: intercept=False"),
        ({"family": "cox", "intercept": False}, r"a pair \(time, event\)"),
        ({"sample_weight": np.ones(3)}, r"sample_weight has shape \(3,\)"),
        ({"sample_weight": -np.ones(4)}, "sample_weight holds a negative number"),
        ({"sample_weight": np.zeros(4)}, "or zeros alone"),
        ({"offset": np.ones(3)}, r"offset has shape \(3,\)"),
    ],
)
def test_bad_input_names_the_argument(change, text):
    with pytest.raises(ValueError, match=text):
        linear(**({"x": X, "y": Y} | change))


@pytest.mark.slow
def test_memory_of_other_strengths_finds_the_same(data):
    x, y = data
    problem = linear(x - x.mean(axis=0), y, intercept=False, standardise=False)
    rules = jaxreg.by_path([("^coefficients$", jaxreg.L1(0.1))])
    weaker = jaxreg.by_path([("^coefficients$", jaxreg.L1(0.01))])
    first, memory = solve_linear(problem, rules, problem.zeros(), TIGHT, 1000)
    start = first.point.params
    warm, _ = solve_linear(problem, weaker, start, TIGHT, 1000, memory)
    cold, _ = solve_linear(problem, weaker, problem.zeros(), TIGHT, 1000)
    np.testing.assert_allclose(
        warm.point.params["coefficients"], cold.point.params["coefficients"], atol=1e-8
    )
