"""Penalties of order and smoothness against other solvers and optimality conditions."""

import itertools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import isotonic_regression, lsq_linear
from sklearn.isotonic import IsotonicRegression

import jaxreg
from jaxreg.penalties._isotonic import falling_regression

PROX = jax.jit(lambda penalty, v, step: penalty.prox(v, step))
FALLING = jax.jit(falling_regression)


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


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


def test_isotonic_regression_of_a_million_entries_is_that_of_scipy() -> None:
    v = np.random.default_rng(0).normal(size=10**6).astype(np.float32)
    for one in (v, np.sort(v), np.sort(v)[::-1].copy()):
        theirs = isotonic_regression(one.astype(float), increasing=False).x
        # Float32 means of up to a million entries.
        np.testing.assert_allclose(FALLING(one), theirs, atol=1e-4)


def test_slope_prox_is_that_of_skglm(x64) -> None:
    prox_functions = pytest.importorskip("skglm.utils.prox_funcs")
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


def test_slope_value_is_the_largest_over_all_orders_of_the_strengths(x64) -> None:
    strengths = np.array([1.0, 0.7, 0.2, 0.0])
    w = np.array([0.3, -2.0, 0.3, 1.0])
    orders = itertools.permutations(strengths)
    expected = max(np.dot(order, abs(w)) for order in orders)
    np.testing.assert_allclose(jaxreg.SLOPE(strengths).value(w), expected)


def test_slope_prox_is_the_best_of_all_orders_and_pools_of_four_entries(x64) -> None:
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


def test_slope_refuses_rising_strengths_and_lists() -> None:
    with pytest.raises(ValueError, match="strengths rise"):
        jaxreg.SLOPE(np.array([0.1, 0.2]))
    with pytest.raises(TypeError, match="allowed: an array of one axis"):
        jaxreg.SLOPE([0.2, 0.1])


def test_slope_refuses_a_leaf_of_another_size() -> None:
    penalty = jaxreg.SLOPE(np.array([0.2, 0.1]))
    assert penalty.refusal((2, 1)) is None
    assert penalty.refusal((3,)) == "has 3 entries, and strengths 2; give one per entry"
    with pytest.raises(ValueError, match="has 3 entries, and strengths 2"):
        penalty.prox(np.zeros(3), 1.0)


def test_regularize_reaches_the_slope_solution_of_skglm(x64) -> None:
    skglm = pytest.importorskip("skglm")
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

    def step(carry, _):
        w, state = carry
        updates, state = tx.update(x.T @ (x @ w - y) / 60, state, w)
        return (optax.apply_updates(w, updates), state), None

    start = jnp.zeros(12)
    train = jax.jit(lambda c: jax.lax.scan(step, c, length=6000)[0][0])
    w = train((start, tx.init(start)))
    # The last steps of a cosine that ends at 0.
    np.testing.assert_allclose(w, expected, atol=1e-6)
    np.testing.assert_array_equal(w == 0, expected == 0)
    assert 0 < np.sum(w == 0) < 12


def stray(v: np.ndarray, x: np.ndarray, threshold: np.ndarray) -> float:
    """How far `x` is from the optimality conditions of total variation.

    The sums of `(x - v) / threshold` lie in [-1, 1], end at 0, and are the sign of the
    jump wherever x jumps.
    """
    dual = np.cumsum((np.asarray(x, float) - v) / threshold)
    jumps = np.sign(np.diff(x))
    at_jumps = abs(dual[:-1] - jumps)[jumps != 0]
    outside = abs(dual[:-1]) - 1
    return max(outside.max(initial=0), at_jumps.max(initial=0), abs(dual[-1]))


@pytest.mark.parametrize("kind", ["noise", "walk", "ties", "plateaus", "zeros"])
@pytest.mark.parametrize("decades", [0, 8])
def test_total_variation_meets_its_optimality_conditions(kind, decades, x64) -> None:
    generator = np.random.default_rng(1)
    for size, strength in itertools.product((1, 2, 1000, 100_000), (0.3, 30.0)):
        v = signals(size)[kind]
        half = decades / 2
        steps = (
            10.0 ** generator.uniform(-half, half, size) if decades else np.ones(size)
        )
        x = PROX(jaxreg.TotalVariation(strength, axis=0), v, steps)
        # An answer rounded to float64, by the largest weight, summed over the line.
        largest = abs(v).max() / (strength * steps.min())
        assert stray(v, x, strength * steps) <= 1e-15 * size**0.5 * (10 + 10 * largest)


@pytest.mark.parametrize("kind", ["noise", "walk", "ties"])
def test_total_variation_in_float32_is_that_in_float64(kind: str) -> None:
    v = signals(100_000)[kind].astype(np.float32)
    for strength in (0.3, 30.0):
        penalty = jaxreg.TotalVariation(np.float32(strength), axis=0)
        found = PROX(penalty, v, 1.0)
        with jax.enable_x64(True):
            exact = PROX(penalty, v.astype(float), 1.0)
        # Four roundings of the largest entry.
        assert np.max(abs(found - np.asarray(exact))) <= 5e-7 * abs(v).max()


@pytest.mark.parametrize("decades", [0, 2])
def test_total_variation_is_the_dual_solution_of_scipy(decades: float, x64) -> None:
    generator = np.random.default_rng(2)
    for size in (2, 5, 30):
        v = generator.normal(size=size)
        threshold = 10.0 ** generator.uniform(-decades / 2, decades / 2, size)
        rows = np.diff(np.eye(size), axis=0) * np.sqrt(threshold)
        goal = v / np.sqrt(threshold)
        dual = lsq_linear(rows.T, goal, (-1, 1), "bvls", tol=1e-16).x
        expected = v - np.sqrt(threshold) * (rows.T @ dual)
        step = threshold if decades else threshold[0]
        if not decades:
            np.testing.assert_allclose(threshold, 1)
        found = PROX(jaxreg.TotalVariation(1.0, axis=0), v, step)
        # The active set method ends in one least squares problem of float64.
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_flat_segments_are_exactly_equal_and_fixed_entries_exactly_fixed(x64) -> None:
    v = signals(2000)["walk"]
    steps = 10.0 ** np.random.default_rng(0).uniform(-4, 4, v.size)
    steps[::97] = 0.0
    x = np.asarray(PROX(jaxreg.TotalVariation(1.0, axis=0), v, steps))
    np.testing.assert_array_equal(x[::97], v[::97])
    gaps = abs(np.diff(x))
    assert np.sum(gaps == 0) > 500
    # No gap is a rounding of 0: the smallest true gaps of 2000 entries are larger.
    assert np.min(gaps[gaps > 0]) > 1e-12


def test_fixed_entries_leave_the_others_optimal_between_them() -> None:
    """Weights of 1e30 would erase the others from sums that run past them."""
    v = np.array([0.0, 5.0, -3.0, 1.0, 9.0, 2.0, 2.5, 0.0], np.float32)
    steps = np.array([1.0, 1e4, 1e4, 0.0, 1.0, 1.0, 0.0, 1.0], np.float32)
    found = PROX(jaxreg.TotalVariation(1.0, axis=0), v, steps)
    # Pairs around the fixed 1 and 2.5, by hand.
    np.testing.assert_allclose(found, [1, 1, 1, 1, 7, 2.5, 2.5, 1.0], rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_lines_along_other_axes_equal_separate_calls(axis: int, x64) -> None:
    v = np.random.default_rng(0).normal(size=(7, 5, 6))
    for penalty in (
        jaxreg.TotalVariation(0.4, axis),
        jaxreg.FusedLasso(0.1, 0.4, axis),
        jaxreg.TrendFilter(0.4, 1, axis),
    ):
        alone = jax.tree.map(lambda number: number, penalty)
        alone = type(alone)(*jax.tree.leaves(penalty), *order_of(penalty), axis=0)
        found = np.moveaxis(PROX(penalty, v, 1.0), axis, 0)
        lines = np.moveaxis(v, axis, 0)
        for place in np.ndindex(lines.shape[1:]):
            expected = PROX(alone, lines[:, *place], 1.0)
            # Trend filtering stops when its moves are below 1e-12.
            np.testing.assert_allclose(found[:, *place], expected, atol=1e-9)


def order_of(penalty: jaxreg.Penalty) -> tuple[int, ...]:
    return (penalty.order,) if isinstance(penalty, jaxreg.TrendFilter) else ()


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
def test_vmap_costs_what_a_loop_costs(penalty: jaxreg.Penalty) -> None:
    """Under plain vmap such loops select whole arrays at every step: 7000 calls."""
    v = np.random.default_rng(0).normal(size=(4, 30_000)).astype(np.float32)
    many = jax.jit(jax.vmap(lambda v: penalty.prox(v, 1.0)))
    one = jax.jit(lambda v: penalty.prox(v, 1.0))
    np.testing.assert_array_equal(many(v)[2], one(v[2]))
    assert seconds(many, v) < 40 * seconds(one, v[0])


def test_the_fused_prox_is_the_soft_threshold_of_that_of_total_variation(x64) -> None:
    v = signals(200)["walk"]
    flat = PROX(jaxreg.TotalVariation(0.4, axis=0), v, 0.7)
    expected = PROX(jaxreg.L1(0.3), flat, 0.7)
    found = PROX(jaxreg.FusedLasso(0.3, 0.4, axis=0), v, 0.7)
    np.testing.assert_array_equal(found, expected)


def test_the_fused_prox_refuses_steps_along_its_axis_and_takes_others(x64) -> None:
    penalty = jaxreg.FusedLasso(1.0, 1.0, axis=0)
    # Soft threshold after total variation has objective 1.817 here, the best is 1.05.
    with pytest.raises(ValueError, match="varies among entries"):
        penalty.prox(np.array([1.0, 1.1]), np.array([1.0, 0.1]))
    v, steps = np.ones((3, 2)) * [2.0, 5.0], np.array([[0.5, 2.0]])
    np.testing.assert_allclose(penalty.prox(v, steps)[0], [1.5, 3.0])


def test_l1_plus_total_variation_is_the_fused_lasso() -> None:
    lasso, lines = jaxreg.L1(0.3), jaxreg.TotalVariation(0.4, axis=0)
    fused = jaxreg.FusedLasso(0.3, 0.4, axis=0)
    assert lasso + lines == lines + lasso == fused
    assert (fused + lasso).l1 == 0.6
    assert (lines + fused).total_variation == 0.8
    assert (fused + fused).total_variation == 0.8
    assert (lines + lines).strength == 0.8


def test_the_sum_of_total_variations_along_two_axes_is_refused() -> None:
    rows, columns = (jaxreg.TotalVariation(0.4, axis) for axis in (0, 1))
    for one in (rows, jaxreg.FusedLasso(0.1, 0.4, axis=0)):
        with pytest.raises(TypeError, match="along two axes is not known"):
            one + columns


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("strength", [0.01, 1.0, 10.0])
def test_the_trend_is_the_dual_solution_of_scipy(order, strength, x64) -> None:
    for size in (order + 1, 8, 40):
        v = signals(size)["walk"]
        rows = np.diff(np.eye(size), n=order + 1, axis=0)
        expected = v
        if len(rows):
            bounds = (-strength, strength)
            dual = lsq_linear(rows.T, v, bounds, "bvls", tol=1e-16, max_iter=10_000).x
            expected = v - rows.T @ dual
        penalty = jaxreg.TrendFilter(strength, order, axis=0)
        # The prox stops at moves of 1e-12; its error is a multiple of that.
        np.testing.assert_allclose(PROX(penalty, v, 1.0), expected, atol=1e-9)
        with jax.enable_x64(False):
            narrow = PROX(penalty, v.astype(np.float32), 1.0)
        slack = penalty.prox_tolerance * abs(v).max()
        np.testing.assert_allclose(narrow, expected, atol=slack)


@pytest.mark.parametrize("order", [1, 2])
def test_a_strong_trend_is_the_polynomial_fit(order: int, x64) -> None:
    v, places = signals(30)["noise"], np.arange(30)
    fit = np.polynomial.Polynomial.fit(places, v, order)(places)
    found = PROX(jaxreg.TrendFilter(1e6, order, axis=0), v, 1.0)
    np.testing.assert_allclose(found, fit, atol=1e-9)


def test_a_trend_of_order_zero_is_refused_and_told_of_total_variation() -> None:
    with pytest.raises(ValueError, match=r"Order 0 is jaxreg\.TotalVariation"):
        jaxreg.TrendFilter(1.0, order=0, axis=0)


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
def test_the_prox_has_the_derivatives_of_finite_differences(penalty, x64) -> None:
    v = signals(12)["noise"]
    weights = np.random.default_rng(1).normal(size=12)

    def height(v, penalty, step):
        return jnp.dot(weights, penalty.prox(v, step))

    slopes = jax.grad(height, argnums=(0, 1, 2))(v, penalty, 0.7)
    numbers = (v, penalty, 0.7)
    for place in range(3):
        direction = jax.tree.map(
            lambda x: np.cos(np.arange(np.size(x))).reshape(np.shape(x)), numbers[place]
        )

        def at(size, place=place, direction=direction):
            moved = list(numbers)
            moved[place] = jax.tree.map(
                lambda x, d: x + size * d, moved[place], direction
            )
            return height(*moved)

        pairs = zip(
            jax.tree.leaves(slopes[place]), jax.tree.leaves(direction), strict=True
        )
        found = sum(np.sum(slope * d) for slope, d in pairs)
        # Central differences: 1e-10 of rounding, and 1e-12 / 1e-6 of the iteration.
        np.testing.assert_allclose(found, (at(1e-6) - at(-1e-6)) / 2e-6, atol=1e-5)


@pytest.mark.parametrize("axis", [None, 1.0, True, (0,)])
def test_an_axis_that_is_no_int_is_refused(axis) -> None:
    for make in (
        lambda axis: jaxreg.TotalVariation(0.4, axis),
        lambda axis: jaxreg.FusedLasso(0.1, 0.4, axis),
        lambda axis: jaxreg.TrendFilter(0.4, 1, axis),
    ):
        with pytest.raises(TypeError, match="allowed: an int, one axis"):
            make(axis)


def test_leaves_without_the_axis_are_refused() -> None:
    for penalty in (jaxreg.TotalVariation(0.4, 1), jaxreg.TrendFilter(0.4, 1, 1)):
        assert "has no axis" in penalty.refusal(())
        assert "has axes 0 to 0, and axis is 1" in penalty.refusal((4,))
        assert penalty.refusal((4, 3)) is None
