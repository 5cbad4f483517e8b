"""Single penalties against other libraries, and peers' defects as regressions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import brentq
from sklearn import linear_model
from sklearn.datasets import load_diabetes

import jaxreg


@pytest.fixture(scope="module")
def diabetes() -> tuple[np.ndarray, np.ndarray]:
    """Standardised features and a centred target of unit scale."""
    features, target = load_diabetes(return_X_y=True)
    features = features / features.std(0)
    return features - features.mean(0), (target - target.mean()) / target.std()


def half_mean_square(w: np.ndarray, data: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """The gradient of `||y - Xw||^2 / (2 n)`."""
    features, target = data
    return features.T @ (features @ w - target) / len(target)


def assert_stationary(penalty: jaxreg.Penalty, w: np.ndarray, grad: np.ndarray) -> None:
    distance = penalty.stationarity(w, grad)
    # scikit-learn's coordinate descent ends at a duality gap of 1e-14.
    assert float(jnp.max(distance)) < 1e-6


@pytest.mark.parametrize("alpha", [0.003, 0.03, 0.3])
def test_sklearn_lasso_is_stationary_for_l1(alpha: float, diabetes, x64) -> None:
    model = linear_model.Lasso(
        alpha=alpha, fit_intercept=False, tol=1e-14, max_iter=10**6
    )
    w = model.fit(*diabetes).coef_
    assert_stationary(jaxreg.L1(alpha), w, half_mean_square(w, diabetes))
    other = jaxreg.L1(1.1 * alpha).stationarity(w, half_mean_square(w, diabetes))
    assert float(jnp.max(other)) > 1e-4


@pytest.mark.parametrize("alpha", [0.003, 0.3])
@pytest.mark.parametrize("l1_ratio", [0.2, 0.9])
def test_sklearn_elastic_net_is_stationary_for_from_sklearn(
    alpha: float, l1_ratio: float, diabetes, x64
) -> None:
    model = linear_model.ElasticNet(
        alpha=alpha, l1_ratio=l1_ratio, fit_intercept=False, tol=1e-14, max_iter=10**6
    )
    w = model.fit(*diabetes).coef_
    penalty = jaxreg.ElasticNet.from_sklearn(alpha, l1_ratio)
    assert_stationary(penalty, w, half_mean_square(w, diabetes))


def test_sklearn_ridge_is_stationary_for_l2_at_alpha_by_n(diabetes, x64) -> None:
    features, target = diabetes
    w = linear_model.Ridge(alpha=7.0, fit_intercept=False).fit(features, target).coef_
    half = half_mean_square(w, diabetes)
    assert_stationary(jaxreg.L2(7.0 / len(target)), w, 2 * half)
    assert_stationary(jaxreg.L2(7.0 / (2 * len(target))), w, half)


def test_keras_formulas_have_the_same_numbers(x64) -> None:
    w = np.random.default_rng(0).normal(size=(4, 3))
    keras_l1 = 0.01 * np.sum(np.abs(w))
    keras_l2 = 0.02 * np.sum(np.square(w))
    # One sum in float64.
    np.testing.assert_allclose(jaxreg.L1(0.01).value(w), keras_l1, rtol=1e-14)
    np.testing.assert_allclose(jaxreg.L2(0.02).value(w), keras_l2, rtol=1e-14)
    both = jaxreg.ElasticNet(0.01, 0.02).value(w)
    np.testing.assert_allclose(both, keras_l1 + keras_l2, rtol=1e-14)


def test_weight_decay_is_twice_the_strength_of_l2() -> None:
    w = jnp.array([2.0, -1.0, 0.0])
    decay = optax.add_decayed_weights(0.3)
    decayed, _ = decay.update(jnp.zeros(3), decay.init(w), w)
    # One rounding of float32 in each product.
    np.testing.assert_allclose(jaxreg.L2(0.15).subgradient(w), decayed, rtol=2e-7)


def test_an_infinite_threshold_of_l1_gives_zero() -> None:
    v = jnp.array([2.0, -1.0, 0.0, -0.0])
    out = jaxreg.L1(1.0).prox(v, jnp.inf)
    assert np.array_equal(out, jnp.zeros(4)) and not np.signbit(out).any()


@pytest.mark.parametrize(
    "penalty", [jaxreg.L1(0.3), jaxreg.L2(0.3), jaxreg.ElasticNet(0.3, 0.2)]
)
def test_groups_of_one_entry_are_the_elementwise_penalty(penalty) -> None:
    v = jnp.array([[2.0], [-1.0], [0.2], [0.0]])
    grads = jnp.array([[0.1], [-1.0], [0.2], [0.7]])
    rows = jaxreg.grouped(penalty, group_axis=0)
    pairs = [
        (rows.value(v), penalty.value(v)),
        (rows.prox(v, 0.5), penalty.prox(v, 0.5)),
        (rows.prox(v, abs(v)), penalty.prox(v, abs(v))),
        (rows.subgradient(v), penalty.subgradient(v)),
        (rows.stationarity(v, grads), penalty.stationarity(v, grads)),
    ]
    for found, expected in pairs:
        # The square, its root and the quotient round once each.
        np.testing.assert_allclose(found, expected, rtol=5e-7, atol=1e-8)


def test_the_group_lasso_is_l1_grouped() -> None:
    v = jax.random.normal(jax.random.key(0), (5, 4))
    lasso, lifted = (
        jaxreg.GroupLasso(0.3, group_axis=1),
        jaxreg.grouped(jaxreg.L1(0.3), group_axis=1),
    )
    assert lasso.value(v) == lifted.value(v)
    np.testing.assert_array_equal(lasso.prox(v, 0.7), lifted.prox(v, 0.7))


@pytest.mark.parametrize("size, spread", [(1.0, 8), (0.5, 0), (5.0, 0.1), (1e4, 1)])
def test_l2_grouped_is_l2_for_steps_per_coordinate(size, spread, x64) -> None:
    v = np.random.default_rng(0).normal(size=(5, 4))
    decades = np.random.default_rng(1).uniform(-spread / 2, spread / 2, v.shape)
    penalty = jaxreg.grouped(jaxreg.L2(0.3), group_axis=0)
    found = jax.jit(penalty.prox)(v, size * 10.0**decades)
    # Newton's method ends at the rounding of float64.
    expected = jaxreg.L2(0.3).prox(v, size * 10.0**decades)
    np.testing.assert_allclose(found, expected, rtol=1e-11)


def group_problems(decades: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Groups of 8 entries and steps whose ratio within a group reaches 10^decades.

    The norms are drawn about the edge of the dead zone, so that many groups are zero.
    """
    generator = np.random.default_rng(int(decades))
    v = generator.normal(size=(count, 8))
    steps = 10.0 ** generator.uniform(-decades / 2, decades / 2, v.shape)
    pull = np.sqrt(((v / steps) ** 2).mean(1, keepdims=True))
    return v * 10.0 ** generator.uniform(-1, 2, (count, 1)) / pull, steps


def group_prox_by_root(v: np.ndarray, step: np.ndarray, slope) -> np.ndarray:
    """One group: `x = v t / (t + s phi'(t))` with `mean (x / t)^2 = 1`, by root."""
    if np.sqrt(((v / step) ** 2).mean()) <= slope(0.0):
        return np.zeros_like(v)

    def excess(log_size: float) -> float:
        size = np.exp(log_size)
        return ((v / (size + step * slope(size))) ** 2).mean() - 1

    high = np.log(np.sqrt((v**2).mean())) + 1e-9
    size = np.exp(brentq(excess, high - 60, high, xtol=1e-15, rtol=1e-15))
    return v * size / (size + step * slope(size))


GROUPED = {
    "group lasso": (jaxreg.GroupLasso(1.0, 0), lambda size: 1.0),
    "elastic net": (
        jaxreg.grouped(jaxreg.ElasticNet(1.0, 0.5), 0),
        lambda size: 1.0 + size,
    ),
}


@pytest.mark.parametrize("decades", [0, 2, 4, 8])
@pytest.mark.parametrize("kind", GROUPED)
def test_the_group_prox_in_a_metric_agrees_with_bisection(
    kind: str, decades: float
) -> None:
    penalty, slope = GROUPED[kind]
    v, steps = group_problems(decades, 300)
    rounded = np.float32(v).astype(float), np.float32(steps).astype(float)
    expected = np.stack(
        [group_prox_by_root(*pair, slope) for pair in zip(*rounded, strict=True)]
    )
    found = np.asarray(jax.jit(penalty.prox)(np.float32(v), np.float32(steps)), float)
    norm = np.linalg.norm(expected, axis=1)
    dead = norm == 0
    assert 20 < dead.sum() < 280
    np.testing.assert_array_equal(np.all(found == 0, 1), dead)
    error = np.linalg.norm(found - expected, axis=1)[~dead] / norm[~dead]
    # maths.md 1.4: the worst are groups a hair above the threshold.
    assert np.median(error) < 2e-7
    assert error.max() < 2e-4
    with jax.enable_x64(True):
        found = np.asarray(jax.jit(penalty.prox)(*rounded))
    error = np.linalg.norm(found - expected, axis=1)[~dead] / norm[~dead]
    # Float64, and the same amplification near the threshold.
    assert np.median(error) < 1e-14
    assert error.max() < 1e-11


@pytest.mark.parametrize("l1", [0.0, 1e-30, 1e-6, 1e-2])
def test_the_grouped_elastic_net_is_right_where_its_l1_is_small(l1: float, x64) -> None:
    penalty = jaxreg.grouped(jaxreg.ElasticNet(l1, 0.5), group_axis=0)
    v = np.random.default_rng(0).normal(size=(20, 8))
    for size in (0.5, 2.0, 50.0):
        steps = size * np.random.default_rng(1).uniform(0.5, 2.0, v.shape)
        found = jax.jit(penalty.prox)(v, steps)
        for group, step, answer in zip(v, steps, found, strict=True):
            expected = group_prox_by_root(group, step, lambda t: l1 + t)
            # The roots of both end at the rounding of float64.
            np.testing.assert_allclose(answer, expected, rtol=1e-9)


def test_entries_of_step_zero_stay_and_the_group_solves_the_rest(x64) -> None:
    v, steps = np.array([[3.0, 0.5, 0.0]]), np.array([[0.0, 1.0, 0.0]])
    penalty = jaxreg.GroupLasso(0.3, group_axis=0)
    found = jax.jit(penalty.prox)(v, steps)[0]
    grid = np.linspace(-1, 1, 2_000_001)
    rest = 0.3 * np.sqrt(3) * np.sqrt(9 + grid**2) + (grid - 0.5) ** 2 / 2
    assert found[0] == 3.0 and found[2] == 0.0
    # Half the spacing of the grid.
    np.testing.assert_allclose(found[1], grid[rest.argmin()], atol=6e-7)


def test_jaxopt_prox_ridge_loses_a_factor_of_two_and_l2_does_not() -> None:
    assert jaxreg.L2(1.0).prox(jnp.array(3.0), 1.0) == 1.0


@pytest.mark.parametrize("step", [1.0, np.array([[1.0, 2.0]])])
def test_jaxopt_prox_group_lasso_has_a_nan_jacobian_at_zero(step) -> None:
    prox = jaxreg.GroupLasso(1.0, group_axis=0).prox
    for jacobian in (jax.jacfwd(prox), jax.jacrev(prox)):
        at_zero = jax.jit(jacobian)(jnp.zeros((1, 2)), step)
        assert np.array_equal(at_zero, np.zeros((1, 2, 1, 2)))


@pytest.mark.parametrize("kind", [int, float, np.float32, np.float64, jnp.asarray])
def test_jaxopt_prox_elastic_net_raises_on_scalars_with_pytrees(kind) -> None:
    tree = {"a": jnp.array([3.0, -0.5]), "b": jnp.array(-5.0)}
    out = jaxreg.ElasticNet(kind(1), kind(1)).prox(tree, kind(1))
    # One quotient in float32.
    np.testing.assert_allclose(out["a"], [2 / 3, 0.0], rtol=2e-7)
    np.testing.assert_allclose(out["b"], -4 / 3, rtol=2e-7)


@pytest.mark.parametrize("step", [1.0, np.array([[1.0, 2.0]])])
def test_proxssi_prox_l2_is_nan_at_zero_without_a_strength(step) -> None:
    out = jaxreg.GroupLasso(0.0, group_axis=0).prox(jnp.zeros((1, 2)), step)
    assert np.array_equal(out, np.zeros((1, 2)))


@pytest.mark.parametrize("step", [0.0, np.zeros((1, 2))])
def test_skglm_bst_of_zero_at_threshold_zero_is_nan(step) -> None:
    out = jaxreg.GroupLasso(1.0, group_axis=0).prox(jnp.zeros((1, 2)), step)
    assert np.array_equal(out, np.zeros((1, 2)))


def test_sign_times_relu_leaves_negative_zeros_and_l1_does_not() -> None:
    out = jaxreg.L1(1.0).prox(jnp.array([-0.5, -1.0, -0.0]), 1.0)
    assert not np.signbit(out).any()


def test_jax_grad_of_abs_is_one_at_zero_and_that_of_l1_is_zero() -> None:
    assert jax.grad(jnp.abs)(0.0) == 1.0
    assert jax.grad(jaxreg.L1(1.0).value)(0.0) == 0.0


def test_the_four_penalties_state_their_step_for_a_width() -> None:
    rows = {
        jaxreg.L1(0.5): 0.1,
        jaxreg.GroupLasso(0.5, 0): 0.1,
        jaxreg.ElasticNet(0.5, 2.0): 0.05 / (0.5 + 2 * 2.0 * 0.05),
        jaxreg.L2(0.5): 1.0,
    }
    for penalty, step in rows.items():
        # One quotient in float32.
        np.testing.assert_allclose(penalty.step_for(0.05), step, rtol=2e-7)


def test_a_numpy_integer_is_an_axis() -> None:
    ours, plain = jaxreg.GroupLasso(0.3, np.int64(1)), jaxreg.GroupLasso(0.3, 1)
    leaf = jnp.arange(6.0).reshape(2, 3)
    assert np.array_equal(ours.prox(leaf, 1.0), plain.prox(leaf, 1.0))


def test_a_strength_in_half_precision_keeps_its_step() -> None:
    # 1e-5 is subnormal in float16, and must not pass for a strength of 0.
    step = jaxreg.L1(jnp.float16(1e-5)).step_for(0.05)
    np.testing.assert_allclose(step, 0.05 / float(jnp.float16(1e-5)), rtol=1e-5)
