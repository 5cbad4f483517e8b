"""Weights, signs, references, envelopes and conjugates: facts beyond the laws."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn import linear_model

import jaxreg
from jaxreg.rules.by_path import ByPath
from tests.support.training import train

with warnings.catch_warnings():
    # It says of itself, on every import, that it is no longer maintained.
    warnings.filterwarnings("ignore", "JAXopt is no longer", DeprecationWarning)
    from jaxopt import prox as jaxopt_prox

L1 = jaxreg.L1(0.3)
PARAMS = {
    "hidden": {"bias": jnp.array([0.4, -2.0]), "kernel": jnp.array([[1.0, -0.5]])},
    "out": {"kernel": jnp.array([[2.0], [0.2]])},
}
RULES = jaxreg.by_path(
    [("hidden/kernel", jaxreg.GroupLasso(0.3, group_axis=1)), ("kernel", L1)]
)
V = np.linspace(-3, 3, 13)


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    design = generator.normal(size=(60, 8))
    true = np.array([2.0, -1.5, 0.0, 0.5, 0.0, 0.0, 1.0, -0.3])
    return design, design @ true + 0.3 * generator.normal(size=60)


def minimised(data, penalty: jaxreg.Penalty, steps: int = 4000) -> np.ndarray:
    """Adam with a cosine learning rate inside `regularize`, in float64."""
    design, target = data
    rate = optax.cosine_decay_schedule(0.05, steps)
    tx = jaxreg.regularize(optax.adam(rate), penalty, width=0.5)

    def grads_of(w):
        return design.T @ (design @ w - target) / len(target)

    return np.asarray(train(tx, grads_of, jnp.zeros(design.shape[1]), steps)[0])


def from_target(params):
    """The gradients of half the squared distance to `PARAMS`."""
    return jax.tree.map(lambda leaf, goal: leaf - goal, params, PARAMS)


LIFTS_WITH_TREES = {
    "weighted": (jaxreg.weighted, lambda v: 1.3 * abs(v)),
    "anchored": (jaxreg.anchored, lambda v: v - 0.2),
}


@pytest.mark.parametrize("name", LIFTS_WITH_TREES)
@pytest.mark.parametrize("penalty", [L1, jaxreg.by_path([("kernel|bias", L1)])])
def test_regularize_takes_an_anchor_that_is_a_tree_of_numbers(
    name: str, penalty: jaxreg.Penalty
) -> None:
    lift, number = LIFTS_WITH_TREES[name]
    lifted = lift(penalty, jax.tree.map(number, PARAMS))
    tx = jaxreg.regularize(optax.sgd(0.05), lifted, width=0.3)
    start = jax.tree.map(jnp.ones_like, PARAMS)
    params, _ = train(tx, from_target, start, 500)
    expected = lifted.prox(PARAMS, 1.0)
    for one, other in zip(
        jax.tree.leaves(params), jax.tree.leaves(expected), strict=True
    ):
        # Gradient descent in float32 has converged.
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert "weighted" in name or jaxreg.summary(lifted, params) is not None


LIFTS = {
    "weighted": lambda penalty: jaxreg.weighted(penalty, 1.0),
    "scaled": lambda penalty: jaxreg.scaled(penalty, 1.0),
    "anchored": lambda penalty: jaxreg.anchored(penalty, 1.0),
    "nonnegative": jaxreg.nonnegative,
    "envelope": lambda penalty: jaxreg.envelope(penalty, 1.0),
}


@pytest.mark.parametrize("name", LIFTS)
def test_a_lift_of_rules_is_rules_and_of_no_penalty_raises(name: str) -> None:
    lifted = LIFTS[name](RULES)
    assert isinstance(lifted, ByPath)
    assert lifted.patterns == RULES.patterns
    with pytest.raises(TypeError, match=r"penalty is 0.3.* allowed: a jaxreg penalty"):
        LIFTS[name](0.3)


def test_scaled_is_the_penalty_of_that_strength() -> None:
    kernel = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4)), jnp.float32)
    for make in (jaxreg.L1, jaxreg.L2, lambda s: jaxreg.GroupLasso(s, 0)):
        found, expected = jaxreg.scaled(make(0.1), 3.0), make(np.float32(0.1) * 3.0)
        # One more rounding of float32.
        np.testing.assert_allclose(
            found.prox(kernel, 0.7), expected.prox(kernel, 0.7), rtol=1e-6, atol=1e-7
        )
        step = found.step_for(0.05)
        np.testing.assert_allclose(step, expected.step_for(0.05), rtol=1e-6)


def test_scaled_rules_make_a_grid_of_training_runs() -> None:
    factors = jnp.array([0.0, 1.0, 10.0])

    def end(factor):
        penalty = jaxreg.scaled(RULES, factor)
        tx = jaxreg.regularize(optax.sgd(0.02), penalty, width=0.3)
        return train(tx, from_target, PARAMS, 600)[0]

    ends = jax.jit(jax.vmap(end))(factors)
    for place, factor in enumerate(factors):
        expected = jaxreg.scaled(RULES, factor).prox(PARAMS, 1.0)
        for one, other in zip(
            jax.tree.leaves(ends), jax.tree.leaves(expected), strict=True
        ):
            # Gradient descent in float32 has converged.
            np.testing.assert_allclose(one[place], other, atol=1e-4)


def test_a_constraint_among_scaled_rules_stays_what_it_is() -> None:
    ball = jaxreg.L2Ball(1.0)
    rules = jaxreg.scaled(jaxreg.by_path([("a", ball), ("b", L1)]), 0.0)
    assert rules.penalties[0] == ball


@pytest.mark.parametrize("number", [0.2, 1.0])
def test_nonnegative_is_what_jaxopt_computes(number: float) -> None:
    lasso = jaxreg.nonnegative(jaxreg.L1(number)).prox(V, 0.7)
    expected = jaxopt_prox.prox_non_negative_lasso(V, number, 0.7)
    np.testing.assert_allclose(lasso, expected, atol=1e-7)
    # jaxopt's ridge is documented with |y|^2 and computes half of that.
    ridge = jaxreg.nonnegative(jaxreg.L2(number / 2)).prox(V, 0.7)
    expected = jaxopt_prox.prox_non_negative_ridge(V, number, 0.7)
    np.testing.assert_allclose(ridge, expected, atol=1e-6)


def test_regularize_reaches_the_positive_lasso_of_scikit_learn(data, x64) -> None:
    model = linear_model.Lasso(
        0.1, fit_intercept=False, positive=True, tol=1e-14, max_iter=10**6
    )
    expected = model.fit(*data).coef_
    found = minimised(data, jaxreg.nonnegative(jaxreg.L1(0.1)))
    np.testing.assert_array_equal(found == 0, expected == 0)
    # The issue asks for 1e-6.
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_negative_weights_start_at_zero_under_regularize() -> None:
    w = jnp.array([-1.0, 0.5])
    tx = jaxreg.regularize(optax.sgd(0.0), jaxreg.nonnegative(L1))
    updates, _ = tx.update(jnp.zeros(2), tx.init(w), w)
    np.testing.assert_allclose(w + updates, [0.0, 0.5], atol=1e-7)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_value_of_nonnegative_is_finite_within_rounding_only(dtype) -> None:
    penalty = jaxreg.nonnegative(L1)
    eps = float(jnp.finfo(dtype).eps)
    assert np.isfinite(penalty.value(jnp.array([1.0, -2 * eps], dtype)))
    outside = jnp.array([1.0, -100 * eps], dtype)
    assert penalty.value(outside) == np.inf
    assert np.isfinite(jax.grad(penalty.value)(outside)).all()


@pytest.mark.parametrize(
    "penalty",
    [jaxreg.NuclearNorm(1.0), jaxreg.envelope(L1, 1.0), jaxreg.UnitNorm()],
)
def test_nonnegative_raises_where_its_prox_would_be_wrong(penalty) -> None:
    with pytest.raises(TypeError, match=r"is not that of max\(v, 0\)"):
        jaxreg.nonnegative(penalty)


def test_nonnegative_takes_weighted_and_scaled_penalties() -> None:
    v = jnp.array([1.0, -1.0, 1.0])
    inner = jaxreg.scaled(jaxreg.weighted(L1, jnp.array([1.0, 1.0, 0.0])), 2.0)
    np.testing.assert_allclose(
        jaxreg.nonnegative(inner).prox(v, 1.0), [0.4, 0.0, 1.0], rtol=1e-6
    )


def test_anchored_l2_is_the_formula_of_l2_sp(x64) -> None:
    origin = np.linspace(1, -1, 13)
    found = jaxreg.anchored(jaxreg.L2(0.4), origin).prox(V, 0.7)
    expected = (V + 2 * 0.4 * 0.7 * origin) / (1 + 2 * 0.4 * 0.7)
    np.testing.assert_allclose(found, expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_anchored_returns_the_reference_exactly(dtype) -> None:
    origin = jnp.asarray(np.random.default_rng(0).normal(size=50), dtype)
    moved = origin + jnp.asarray(0.01, dtype)
    found = jaxreg.anchored(jaxreg.L1(1.0), origin).prox(moved, 1.0)
    np.testing.assert_array_equal(found, origin)


def test_half_precision_minus_a_reference_is_float32() -> None:
    penalty = jaxreg.anchored(jaxreg.L1(1.0), jnp.float32(256.25))
    # bfloat16 holds 256 and 258, and no 0.25 between them.
    np.testing.assert_array_equal(
        penalty.value(jnp.array(256.0, jnp.bfloat16)), np.float32(0.25)
    )


def test_a_reference_that_does_not_fit_its_leaf_raises() -> None:
    penalty = jaxreg.anchored(L1, {"kernel": jnp.ones((2, 3))})
    with pytest.raises(
        ValueError, match=r"'kernel' of shape \(3,\).* has shape \(2, 3"
    ):
        penalty.prox({"kernel": jnp.ones(3)}, 1.0)
    with pytest.raises(TypeError, match="a constraint is told inside from outside"):
        jaxreg.anchored(jaxreg.L2Ball(1.0), 0.0)
