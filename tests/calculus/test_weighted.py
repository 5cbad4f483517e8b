"""Weights on entries, groups and leaves: facts beyond the laws."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn import linear_model

import jaxreg
from jaxreg._core.groups import Blocks
from jaxreg.rules.by_path import ByPath

L1 = jaxreg.L1(0.3)
PARAMS = {
    "hidden": {"bias": jnp.array([0.4, -2.0]), "kernel": jnp.array([[1.0, -0.5]])},
    "out": {"kernel": jnp.array([[2.0], [0.2]])},
}
RULES = jaxreg.by_path(
    [("hidden/kernel", jaxreg.GroupLasso(0.3, group_axis=1)), ("kernel", L1)]
)


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    design = generator.normal(size=(60, 8))
    true = np.array([2.0, -1.5, 0.0, 0.5, 0.0, 0.0, 1.0, -0.3])
    return design, design @ true + 0.3 * generator.normal(size=60)


def test_the_adaptive_lasso_is_a_lasso_on_scaled_columns(data, x64) -> None:
    design, target = data
    weights = np.linspace(0.2, 2.0, 8)
    model = linear_model.Lasso(0.2, fit_intercept=False, tol=1e-14, max_iter=10**6)
    w = model.fit(design / weights, target).coef_ / weights
    grad = design.T @ (design @ w - target) / len(target)
    distance = jaxreg.weighted(jaxreg.L1(0.2), weights).stationarity(w, grad)
    # Coordinate descent stops at a duality gap of 1e-14.
    assert float(jnp.max(distance)) < 1e-6
    assert 0 < np.sum(w == 0) < 8


def test_weight_zero_leaves_an_entry_as_it_is_and_unweighted() -> None:
    penalty = jaxreg.weighted(jaxreg.L1(1.0), jnp.array([0.0, 1.0]))
    v = jnp.array([0.1, 0.1])
    np.testing.assert_array_equal(penalty.prox(v, 1.0), np.float32([0.1, 0.0]))
    distance = penalty.stationarity(jnp.zeros(2), jnp.array([0.5, 0.5]))
    np.testing.assert_array_equal(distance, [0.5, 0.0])


def test_each_block_takes_its_weight() -> None:
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6)), jnp.float32)
    heads = jaxreg.GroupLasso(0.5, group_axis=Blocks((None, 2)))
    weights = jnp.array([0.0, 1.0, 3.0]).reshape(1, 1, 3, 1)
    found = jaxreg.weighted(heads, weights).prox(kernel, 1.0)
    for head, weight in enumerate([0.0, 1.0, 3.0]):
        own = slice(2 * head, 2 * head + 2)
        expected = jaxreg.GroupLasso(0.5 * weight, Blocks((None, 2)))
        # XLA may sum a group of another shape in another order.
        np.testing.assert_allclose(
            found[:, own], expected.prox(kernel[:, own], 1.0), rtol=1e-6
        )


def test_rules_take_weights_with_the_paths_of_the_parameters() -> None:
    weights = {
        "hidden": {"bias": 9.0, "kernel": jnp.array([[2.0, 0.0]])},
        "out": {"kernel": 3.0},
    }
    penalty = jaxreg.weighted(RULES, weights)
    assert isinstance(penalty, ByPath)
    expected = 0.3 * 2.0 * 1.0 + 3.0 * 0.3 * 2.2
    np.testing.assert_allclose(penalty.value(PARAMS), expected, rtol=1e-6)
    double = jaxreg.weighted(RULES, 2.0)
    np.testing.assert_allclose(double.value(PARAMS), 2 * RULES.value(PARAMS), rtol=1e-6)


def test_rules_that_find_no_weights_raise() -> None:
    with pytest.raises(ValueError, match=r"the rule 'kernel' .* matches only leaves"):
        jaxreg.weighted(RULES, {"hidden": {"kernel": 1.0}})


@pytest.mark.parametrize("weights", [np.ones((3, 2)), np.ones((2, 1, 2)), np.ones(3)])
def test_weights_that_would_broadcast_their_leaf_raise(weights) -> None:
    penalty = jaxreg.weighted(L1, {"kernel": weights})
    with pytest.raises(
        ValueError,
        match=r"on leaf 'kernel' of shape \(1, 2\).* shape \(1, 2\), one per",
    ):
        penalty.value({"kernel": jnp.ones((1, 2))})
    rule = jaxreg.on_kernels(jaxreg.weighted(L1, weights))
    with pytest.raises(ValueError, match=r"on leaf 'kernel' of shape \(1, 2\)"):
        rule.value({"kernel": jnp.ones((1, 2))})


def test_weights_that_vary_within_a_group_or_coupled_leaf_raise() -> None:
    kernel = jnp.ones((2, 3))
    within = jaxreg.weighted(jaxreg.GroupLasso(1.0, group_axis=0), jnp.ones((2, 3)))
    with pytest.raises(ValueError, match=r"broadcast to shape \(2, 1\)"):
        within.prox(kernel, 1.0)
    coupled = jaxreg.weighted(jaxreg.NuclearNorm(1.0), jnp.ones((2, 1)))
    with pytest.raises(ValueError, match=r"broadcast to shape \(\)"):
        coupled.prox(kernel, 1.0)
    double = jaxreg.weighted(jaxreg.NuclearNorm(1.0), 2.0)
    expected = jaxreg.NuclearNorm(2.0).prox(kernel, 0.3)
    # Rounding of the singular values.
    np.testing.assert_allclose(double.prox(kernel, 0.3), expected, rtol=1e-5)


def test_weights_of_another_tree_raise() -> None:
    penalty = jaxreg.weighted(L1, {"elsewhere": 1.0})
    with pytest.raises(ValueError, match="weights and params differ in structure"):
        penalty.value({"kernel": jnp.ones(2)})
    listed = jaxreg.weighted(L1, {"kernel": [1.0, 2.0]})
    with pytest.raises(ValueError, match="weights has several numbers where params"):
        listed.value({"kernel": jnp.ones(2)})


def test_negative_weights_raise_where_they_are_used() -> None:
    with pytest.raises(ValueError, match=r"weights of .* allowed: finite numbers >= 0"):
        jaxreg.regularize(optax.sgd(0.1), jaxreg.weighted(L1, np.array([1.0, -1.0])))


@pytest.mark.parametrize(
    "penalty", [jaxreg.nonnegative(L1), jaxreg.L2Ball(1.0), jaxreg.scaled(L1, 2.0)]
)
def test_what_has_no_pieces_is_not_weighted(penalty: jaxreg.Penalty) -> None:
    with pytest.raises(TypeError, match="it has no pieces to weigh"):
        jaxreg.weighted(penalty, 2.0)
