"""Penalties of order and smoothness against other solvers and optimality conditions."""

import importlib
import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import isotonic_regression
from sklearn.isotonic import IsotonicRegression

import jaxreg
from jaxreg._numerics.isotonic import falling_regression
from tests.support.training import train

PROX = jax.jit(lambda penalty, v, step: penalty.prox(v, step))
FALLING = jax.jit(falling_regression)


def signals(size: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(size)
    noise = generator.normal(size=size)
    return {
        "noise": noise,
        "walk": noise.cumsum(),
        "ties": generator.integers(0, 3, size).astype(float),
        "plateaus": np.repeat(noise, 10)[:size],
        "zeros": np.zeros(size),
    }


@pytest.mark.parametrize("kind", ["noise", "walk", "ties", "plateaus"])
def test_the_blocks_are_those_of_scipy_and_sklearn(kind: str, x64) -> None:
    for size in (1, 2, 7, 1000):
        v = signals(size)[kind]
        found = FALLING(v)
        theirs = isotonic_regression(v, increasing=False).x
        # Means of blocks in float64, summed in another order.
        np.testing.assert_allclose(found, theirs, rtol=1e-12, atol=1e-12)
        model = IsotonicRegression(increasing=False)
        sklearn = model.fit_transform(np.arange(size), v)
        np.testing.assert_allclose(found, sklearn, rtol=1e-12, atol=1e-12)


def test_isotonic_regression_of_a_million_agrees_with_scipy() -> None:
    v = np.random.default_rng(0).normal(size=10**6).astype(np.float32)
    for one in (v, np.sort(v), np.sort(v)[::-1].copy()):
        theirs = isotonic_regression(one.astype(float), increasing=False).x
        # Float32 means of up to a million entries.
        np.testing.assert_allclose(FALLING(one), theirs, atol=1e-4)


@pytest.mark.slow
def test_slope_prox_is_that_of_skglm(x64) -> None:
    prox_functions = importlib.import_module("skglm.utils.prox_funcs")
    generator = np.random.default_rng(0)
    for size in (1, 5, 300):
        strengths = -np.sort(-generator.uniform(0, 1, size))
        v = generator.normal(size=size)
        order = np.argsort(-abs(v))
        expected = np.zeros(size)
        expected[order] = prox_functions.prox_SLOPE(abs(v)[order], 0.7 * strengths)
        found = PROX(jaxreg.SLOPE(strengths), v, 0.7)
        # Means of blocks in float64.
        np.testing.assert_allclose(found, np.sign(v) * expected, atol=1e-13)


def test_slope_value_is_the_largest_over_all_orders(x64) -> None:
    strengths = np.array([1.0, 0.7, 0.2, 0.0])
    w = np.array([0.3, -2.0, 0.3, 1.0])
    orders = itertools.permutations(strengths)
    expected = max(np.dot(order, abs(w)) for order in orders)
    np.testing.assert_allclose(jaxreg.SLOPE(strengths).value(w), expected)


def test_slope_prox_is_the_best_of_all_orders_and_pools(x64) -> None:
    strengths = np.array([1.0, 0.7, 0.2, 0.0])
    penalty = jaxreg.SLOPE(strengths)
    generator = np.random.default_rng(0)
    for v in (*generator.normal(size=(5, 4)), np.array([1.0, 1.0, -1.0, 0.0])):
        lowest = np.inf
        for order in itertools.permutations(range(4)):
            for cuts in itertools.product([False, True], repeat=3):
                blocks = np.split(np.array(order), np.flatnonzero(cuts) + 1)
                x, paid = np.zeros(4), 0
                for block in blocks:
                    share = strengths[paid : paid + len(block)].mean()
                    x[block] = max(abs(v)[block].mean() - share, 0)
                    paid += len(block)
                x *= np.sign(v)
                height = np.dot(strengths, -np.sort(-abs(x))) + ((x - v) ** 2).sum() / 2
                lowest = min(lowest, height)
        x = PROX(penalty, v, 1.0)
        found = penalty.value(x) + jnp.sum((x - v) ** 2) / 2
        # Rounding of float64.
        assert found <= lowest + 1e-13


def test_oscar_is_l1_plus_the_larger_of_every_pair(x64) -> None:
    w = np.array([0.3, -2.0, 0.3, 1.0, 0.0])
    pairs = itertools.combinations(abs(w), 2)
    expected = 0.4 * abs(w).sum() + 0.3 * sum(max(pair) for pair in pairs)
    found = jaxreg.SLOPE.oscar(0.4, 0.3, 5).value(w)
    # A sum of a few float64.
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_slope_of_equal_strengths_is_l1(x64) -> None:
    v = signals(50)["noise"].reshape(10, 5)
    found = PROX(jaxreg.SLOPE(np.full(50, 0.4)), v, 0.7)
    np.testing.assert_allclose(found, PROX(jaxreg.L1(0.4), v, 0.7), atol=1e-14)


def test_slope_raises_on_rising_strengths_and_lists() -> None:
    with pytest.raises(ValueError, match="strengths rise"):
        jaxreg.SLOPE(np.array([0.1, 0.2]))
    with pytest.raises(TypeError, match="allowed: an array of one axis"):
        jaxreg.SLOPE([0.2, 0.1])


def test_slope_raises_on_a_leaf_of_another_size() -> None:
    penalty = jaxreg.SLOPE(np.array([0.2, 0.1]))
    assert penalty.layout.refusal((2, 1)) is None
    assert (
        penalty.layout.refusal((3,))
        == "has 3 entries, and strengths 2; give one per entry"
    )
    with pytest.raises(ValueError, match="has 3 entries, and strengths 2"):
        penalty.prox(np.zeros(3), 1.0)


@pytest.mark.slow
def test_regularize_reaches_the_slope_solution_of_skglm(x64) -> None:
    skglm = importlib.import_module("skglm")
    generator = np.random.default_rng(0)
    features = generator.normal(size=(60, 12))
    target = features[:, :3] @ [3.0, -2.0, 2.0] + 0.5 * generator.normal(size=60)
    strengths = 0.3 * np.linspace(1.0, 0.2, 12)
    solver = skglm.solvers.FISTA(tol=1e-13, max_iter=100_000, opt_strategy="fixpoint")
    loss, theirs = skglm.datafits.Quadratic(), skglm.penalties.SLOPE(strengths)
    loss.initialize(features, target)
    expected = solver.solve(features, target, loss, theirs)[0]
    rate = optax.cosine_decay_schedule(0.05, 6000)
    tx = jaxreg.regularize(optax.adam(rate), jaxreg.SLOPE(strengths))
    x, y = jnp.asarray(features), jnp.asarray(target)
    w, _ = train(tx, lambda w: x.T @ (x @ w - y) / 60, jnp.zeros(12), 6000)
    # The last steps of a cosine that ends at 0.
    np.testing.assert_allclose(w, expected, atol=1e-6)
    np.testing.assert_array_equal(w == 0, expected == 0)
    assert 0 < np.sum(w == 0) < 12


def seconds(function, *args) -> float:
    jax.block_until_ready(function(*args))
    spans = []
    for _ in range(3):
        start = time.perf_counter()
        jax.block_until_ready(function(*args))
        spans.append(time.perf_counter() - start)
    return min(spans)


@pytest.mark.parametrize(
    "penalty", [jaxreg.TotalVariation(0.5, 0), jaxreg.SLOPE(np.linspace(1, 0, 30_000))]
)
@pytest.mark.slow
def test_vmap_costs_what_a_loop_costs(penalty: jaxreg.Penalty) -> None:
    """Under plain vmap such loops select whole arrays at every step: 7000 calls."""
    v = np.random.default_rng(0).normal(size=(4, 30_000)).astype(np.float32)
    many = jax.jit(jax.vmap(lambda v: penalty.prox(v, 1.0)))
    one = jax.jit(lambda v: penalty.prox(v, 1.0))
    np.testing.assert_array_equal(many(v)[2], one(v[2]))
    assert seconds(many, v) < 40 * seconds(one, v[0])


@pytest.mark.parametrize(
    "penalty",
    [
        jaxreg.TotalVariation(0.4, axis=0),
        jaxreg.FusedLasso(0.1, 0.4, axis=0),
        jaxreg.TrendFilter(0.4, order=1, axis=0),
        jaxreg.SLOPE.oscar(0.1, 0.05, 12),
    ],
    ids=lambda penalty: type(penalty).__name__,
)
@pytest.mark.slow
def test_the_prox_has_the_derivatives_of_finite_differences(penalty, x64) -> None:
    v = signals(12)["noise"]
    weights = np.random.default_rng(1).normal(size=12)

    def height(v, penalty, step):
        return jnp.dot(weights, penalty.prox(v, step))

    numbers = (v, penalty, 0.7)
    slopes = jax.grad(height, argnums=(0, 1, 2))(*numbers)

    def along(x):
        return np.cos(np.arange(np.size(x))).reshape(np.shape(x))

    def shifted(place, size):
        moved = [
            jax.tree.map(lambda x, is_it=other == place: x + size * is_it * along(x), x)
            for other, x in enumerate(numbers)
        ]
        return height(*moved)

    for place, slope in enumerate(slopes):
        found = sum(np.sum(one * along(one)) for one in jax.tree.leaves(slope))
        expected = (shifted(place, 1e-6) - shifted(place, -1e-6)) / 2e-6
        # Central differences: 1e-10 of rounding, and 1e-12 / 1e-6 of the iteration.
        np.testing.assert_allclose(found, expected, atol=1e-5)
