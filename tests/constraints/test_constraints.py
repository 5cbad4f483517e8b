"""Sums, norms and counts against other libraries and other algorithms."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import brentq, minimize

import jaxreg
from tests.laws.rows.constraints import largest, onto_l1_ball, onto_simplex

PROX = jax.jit(lambda penalty, leaf, step: penalty.prox(leaf, step))
SIZES = [1e-30, 1e-3, 1.0, 1e3, 1e30]


@pytest.fixture(scope="module")
def jaxopt_projection():
    with warnings.catch_warnings():
        # It says on import that it is no longer maintained.
        warnings.simplefilter("ignore", DeprecationWarning)
        from jaxopt import projection
    return projection


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def broad_steps(seed: int, *shape: int) -> np.ndarray:
    """Steps over 8 decades."""
    return 10 ** np.random.default_rng(seed).uniform(-4, 4, shape)


@pytest.mark.parametrize("radius", [0.1, 5.0, 60.0])
def test_the_l1_ball_agrees_with_sorting_optax_and_jaxopt(
    radius, jaxopt_projection
) -> None:
    v = normal(0, 1000).astype("f4")
    found = PROX(jaxreg.L1Ball(radius), v, 1.0)
    expected = onto_l1_ball(v[None].astype(float), radius)[0]
    # One rounding of the threshold, about 3, and one of the difference.
    np.testing.assert_allclose(found, expected, atol=1e-6)
    theirs = optax.projections.projection_l1_ball(v, radius)
    # Their cumulative sums of 1000 terms in float32.
    np.testing.assert_allclose(found, theirs, atol=2e-5)
    theirs = jaxopt_projection.projection_l1_ball(v, radius)
    np.testing.assert_allclose(found, theirs, atol=2e-5)


@pytest.mark.parametrize("total", [0.1, 5.0, 2000.0])
def test_the_simplex_agrees_with_sorting_optax_and_jaxopt(
    total, jaxopt_projection
) -> None:
    v = normal(0, 1000).astype("f4")
    found = PROX(jaxreg.Simplex(total), v, 1.0)
    expected = onto_simplex(v[None].astype(float), total)[0]
    # One rounding of the threshold, about 3, and one of the difference.
    np.testing.assert_allclose(found, expected, atol=1e-6)
    theirs = optax.projections.projection_simplex(v, total)
    # Their cumulative sums of 1000 terms in float32.
    np.testing.assert_allclose(found, theirs, atol=5e-5)
    theirs = jaxopt_projection.projection_simplex(v, total)
    np.testing.assert_allclose(found, theirs, atol=5e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bound", SIZES)
@pytest.mark.parametrize("step", ["one", "varying"])
@pytest.mark.slow
def test_sums_and_norms_meet_their_bound_at_any_scale(size, bound, step) -> None:
    v = (size * normal(0, 300)).astype("f4")
    steps = 1.0 if step == "one" else broad_steps(1, 300).astype("f4")

    def total(penalty: jaxreg.Penalty, power: int) -> float:
        out = np.asarray(PROX(penalty, v, steps), float) / bound
        return (abs(out) ** power).sum() ** (1 / power)

    here = v.astype(float) / bound
    # 300 terms, of which each is rounded once.
    inside = {"rtol": 2e-6}
    np.testing.assert_allclose(total(jaxreg.Simplex(bound), 1), 1, **inside)
    expected = min(1, abs(here).sum())
    np.testing.assert_allclose(total(jaxreg.L1Ball(bound), 1), expected, **inside)
    expected = min(1, np.linalg.norm(here))
    np.testing.assert_allclose(total(jaxreg.L2Ball(bound), 2), expected, **inside)
    if step == "one":
        np.testing.assert_allclose(total(jaxreg.UnitNorm(), 2) * bound, 1, **inside)


@pytest.mark.parametrize("group_axis", [None, 0])
@pytest.mark.parametrize("steps", [1.0, [[1.0, 2.0, 1.0, 1.0]]], ids=["one", "each"])
def test_a_ball_takes_the_largest_floats(steps, group_axis) -> None:
    v = jnp.array([[1e38, -1e38, 0.0, 0.0]])
    out = PROX(jaxreg.L2Ball(1.0, group_axis), v, jnp.asarray(steps))
    expected = np.array([[1, -1 if steps == 1.0 else -0.5, 0, 0]])
    np.testing.assert_allclose(out, expected / np.linalg.norm(expected), rtol=1e-6)


def threshold_by_root(v: np.ndarray, step: np.ndarray, total: float) -> np.ndarray:
    """`max(v - level s, 0)` by bisection."""

    def excess(level: float) -> float:
        return np.maximum(v - level * step, 0).sum() - total

    low, high = ((v - total) / step).min() - 1, (v / step).max() + 1
    level = brentq(excess, low, high, xtol=1e-16, rtol=1e-15, maxiter=1000)
    return np.maximum(v - level * step, 0)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("total", [0.1, 3.0])
@pytest.mark.slow
def test_thresholds_in_a_metric_agree_with_bisection(seed, total, x64) -> None:
    v, step = normal(seed, 30), 10 ** normal(seed + 100, 30)
    found = PROX(jaxreg.Simplex(total), v, step)
    # Bisection ends at 1e-15 of a level below 1e5, times a step.
    np.testing.assert_allclose(found, threshold_by_root(v, step, total), atol=1e-10)
    found = PROX(jaxreg.L1Ball(total), v, step)
    expected = np.sign(v) * threshold_by_root(abs(v), step, total)
    np.testing.assert_allclose(found, expected, atol=1e-10)


def ball_by_root(v: np.ndarray, step: np.ndarray, radius: float) -> np.ndarray:
    if np.linalg.norm(v) <= radius:
        return v

    def excess(log_level: float) -> float:
        return np.linalg.norm(v / (1 + np.exp(log_level) * step)) / radius - 1

    level = np.exp(brentq(excess, -60, 60, xtol=1e-15, rtol=1e-15))
    return v / (1 + level * step)


@pytest.mark.parametrize("decades", [0.1, 2, 8])
@pytest.mark.parametrize("radius", [1e-3, 1.0, 5.0])
@pytest.mark.slow
def test_the_l2_ball_in_a_metric_agrees_with_bisection(decades, radius) -> None:
    for seed in range(20):
        v = normal(seed, 20).astype("f4")
        spread = np.random.default_rng(seed).uniform(-decades / 2, decades / 2, 20)
        step = (10**spread).astype("f4")
        expected = ball_by_root(v.astype(float), step.astype(float), radius)
        found = np.asarray(PROX(jaxreg.L2Ball(radius), v, step), float)
        error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        # A few units of float32.
        assert error < 1e-6, seed
        with jax.enable_x64(True):
            found = PROX(jaxreg.L2Ball(radius), v.astype(float), step.astype(float))
        # A few units of float64, and bisection in the logarithm of the level.
        np.testing.assert_allclose(found, expected, rtol=1e-12)


CONVEX = {
    "L1 ball": (
        jaxreg.L1Ball(1.0),
        [{"type": "ineq", "fun": lambda x: 1.0 - abs(x[:3]).sum() - abs(x[3:]).sum()}],
    ),
    "L2 ball": (
        jaxreg.L2Ball(1.0),
        [{"type": "ineq", "fun": lambda x: 1.0 - (x**2).sum()}],
    ),
    "simplex": (
        jaxreg.Simplex(1.0),
        [
            {"type": "eq", "fun": lambda x: x.sum() - 1.0},
            {"type": "ineq", "fun": lambda x: x},
        ],
    ),
}


@pytest.mark.parametrize("kind", CONVEX)
def test_projections_in_a_metric_agree_with_a_general_solver(kind, x64) -> None:
    penalty, constraints = CONVEX[kind]
    v, step = np.array([1.0, -0.8, 0.5, 0.9]), np.array([0.5, 1.0, 2.0, 0.1])

    def objective(x: np.ndarray) -> float:
        return ((x - v) ** 2 / (2 * step)).sum()

    found = np.asarray(PROX(penalty, v, step))
    start = 0.9 * found + 0.02
    solved = minimize(
        objective, start, constraints=constraints, method="SLSQP", tol=1e-12
    )
    # SLSQP stops at 1e-12 of the objective; the sum of magnitudes has kinks.
    assert objective(found) <= solved.fun + 1e-6
    np.testing.assert_allclose(found, solved.x, atol=1e-3)


def linf_prox(v: np.ndarray, step: np.ndarray, weight: float) -> np.ndarray:
    """`sign(v) min(|v|, t)` with `sum (|v_i| - t)_+ / s_i = weight`, by bisection."""
    if (abs(v) / step).sum() <= weight:
        return np.zeros_like(v)

    def excess(level: float) -> float:
        return (np.maximum(abs(v) - level, 0) / step).sum() - weight

    level = brentq(excess, 0, abs(v).max(), xtol=1e-16, rtol=1e-15)
    return np.clip(v, -level, level)


@pytest.mark.parametrize("strength", [1e-3, 0.1, 1.0, 10.0])
@pytest.mark.slow
def test_the_maximum_norm_in_a_metric_agrees_with_bisection(strength) -> None:
    penalty = jaxreg.LInf(strength)
    for seed in range(10):
        v, step = normal(seed, 30).astype("f4"), (10 ** normal(seed + 50, 30))
        step = step.astype("f4")
        pair = v.astype(float), step.astype(float)
        expected = linf_prox(*pair, 30 * strength)
        # The level in float32, from sums of 30 terms.
        np.testing.assert_allclose(PROX(penalty, v, step), expected, atol=2e-6)
        with jax.enable_x64(True):
            found = PROX(penalty, *pair)
        np.testing.assert_allclose(found, expected, atol=1e-14)


@pytest.mark.parametrize("step", [0.01, 0.3, 5.0])
def test_the_maximum_norm_is_what_the_l1_ball_leaves(step, x64) -> None:
    v = normal(0, 50)
    ball = onto_l1_ball(v[None] / step, 0.2 * 50)[0]
    found = PROX(jaxreg.LInf(0.2), v, step)
    # Moreau's identity, in float64.
    np.testing.assert_allclose(found, v - step * ball, atol=1e-14)


def test_a_maximum_norm_is_zero_exactly_within_its_dual_ball() -> None:
    v = np.array([[0.3, -0.2], [0.3, -0.3001]], "f4")
    found = np.asarray(PROX(jaxreg.LInf(0.3, group_axis=0), v, 1.0))
    assert not found[0].any()
    assert found[1].all()
    assert abs(found[1, 0]) == abs(found[1, 1])


def test_strength_by_size_is_the_textbook_maximum_norm(x64) -> None:
    v = normal(0, 8)
    np.testing.assert_array_equal(jaxreg.LInf(1 / 8).value(v), abs(v).max())


def test_keras_constraints_have_the_same_formulas(x64) -> None:
    w = normal(0, 6, 4)
    norms = np.sqrt(np.sum(np.square(w), axis=0, keepdims=True))
    desired = {
        "MaxNorm(2, axis=0)": (np.clip(norms, 0, 2), jaxreg.L2Ball(2.0, group_axis=1)),
        "MinMaxNorm(2, 2.5, rate=1, axis=0)": (
            np.clip(norms, 2, 2.5),
            jaxreg.MinMaxNorm(2.0, 2.5, group_axis=1),
        ),
        "UnitNorm(axis=0)": (np.ones_like(norms), jaxreg.UnitNorm(group_axis=1)),
    }
    for keras, (lengths, ours) in desired.items():
        expected = w * lengths / norms
        # Keras adds 1e-7 to the norm; otherwise roundings of float64.
        np.testing.assert_allclose(
            ours.prox(w, 1.0), expected, rtol=1e-14, err_msg=keras
        )
    expected = w * (w >= 0)
    np.testing.assert_array_equal(jaxreg.NonNegative().prox(w, 1.0), expected)


@pytest.mark.parametrize("count", [0, 1, 17, 499, 500, 600])
@pytest.mark.parametrize("kind", ["generic", "tied", "half zero"])
def test_top_k_keeps_what_a_stable_sort_keeps(count: int, kind: str) -> None:
    v = normal(0, 25, 20).astype("f4")
    v = {"generic": v, "tied": np.round(v), "half zero": np.maximum(v, 0)}[kind]
    found = np.asarray(PROX(jaxreg.TopK(count), v, 1.0))
    expected = largest(v.reshape(1, -1), count).reshape(v.shape)
    np.testing.assert_array_equal(found, expected)
    assert (found != 0).sum() == min(count, (v != 0).sum())


def test_top_k_in_a_metric_keeps_the_largest_squares_by_step() -> None:
    v, step = normal(0, 500), 10 ** np.random.default_rng(1).uniform(-4, 4, 500)
    found = np.asarray(PROX(jaxreg.TopK(100), v.astype("f4"), step.astype("f4")))
    kept = np.argsort(-(v**2) / step)[:100]
    np.testing.assert_array_equal(np.flatnonzero(found), np.sort(kept))


def test_top_k_keeps_what_a_step_of_zero_holds_and_counts_it() -> None:
    v, step = np.array([1.0, 5.0, 3.0, 0.0], "f4"), np.array([0.0, 1.0, 1.0, 0.0], "f4")
    assert PROX(jaxreg.TopK(2), v, step).tolist() == [1.0, 5.0, 0.0, 0.0]
    assert PROX(jaxreg.TopK(0), v, step).tolist() == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("step", [1.0, "tree"])
def test_top_k_over_the_tree_counts_all_leaves_together(step) -> None:
    params = {"a": normal(0, 4, 5).astype("f4"), "b": 3 * normal(1, 7).astype("f4")}
    steps = jax.tree.map(jnp.ones_like, params) if step == "tree" else step
    found = PROX(jaxreg.TopK(6, scope="tree"), params, steps)
    flat = np.concatenate([params["a"].ravel(), params["b"]])
    expected = largest(flat[None], 6)[0]
    both = np.concatenate([np.ravel(found["a"]), found["b"]])
    np.testing.assert_array_equal(both, expected)


def test_top_k_over_the_tree_keeps_the_first_of_equal_entries() -> None:
    params = {"a": jnp.ones((2, 2)), "b": jnp.ones(3)}
    found = PROX(jaxreg.TopK(5, scope="tree"), params, 1.0)
    assert (float(found["a"].sum()), found["b"].tolist()) == (4.0, [1.0, 0.0, 0.0])


def test_a_traced_share_compiles_once_and_keeps_that_share() -> None:
    v, traces = normal(0, 40).astype("f4"), []

    @jax.jit
    def kept(penalty: jaxreg.Penalty) -> jax.Array:
        traces.append(penalty)
        return jnp.sum(penalty.prox(v, 1.0) != 0)

    counts = [int(kept(jaxreg.TopK(fraction=share))) for share in (0.0, 0.3, 1.0)]
    assert counts == [0, 12, 40]
    assert len(traces) == 1


@pytest.mark.parametrize("n, m", [(0, 2), (1, 2), (2, 4), (3, 4), (4, 4), (1, 8)])
@pytest.mark.parametrize("axis", [0, 1, 2, -2])
def test_nm_agrees_with_a_loop_over_blocks(n: int, m: int, axis: int) -> None:
    v = np.round(4 * normal(0, 8, 16, 8)).astype("f4")
    expected = np.moveaxis(v.copy(), axis, -1)
    for index in np.ndindex(*expected.shape[:-1]):
        for start in range(0, expected.shape[-1], m):
            block = expected[index][start : start + m]
            block[np.argsort(-abs(block), kind="stable")[n:]] = 0
    found = PROX(jaxreg.NM(n, m, axis), v, 1.0)
    np.testing.assert_array_equal(found, np.moveaxis(expected, -1, axis))


def test_jaxpruner_blocks_outputs_where_nm_blocks_inputs() -> None:
    kernel = jnp.array([[4.0, 3.0], [2.0, 1.0]])
    assert jaxreg.NM(1, 2).prox(kernel, 1.0).tolist() == [[4.0, 3.0], [0.0, 0.0]]
    outputs = jaxreg.NM(1, 2, axis=-1).prox(kernel, 1.0)
    assert outputs.tolist() == [[4.0, 0.0], [2.0, 0.0]]


def test_nm_in_a_metric_keeps_the_largest_squares_by_step() -> None:
    v = jnp.array([[2.0], [1.0], [1.0], [3.0]])
    step = jnp.array([[9.0], [1.0], [0.0], [1.0]])
    found = jaxreg.NM(1, 2).prox(v, step)
    # A step of 0 holds its entry, which takes the place of the other.
    assert found.ravel().tolist() == [0.0, 1.0, 1.0, 0.0]
