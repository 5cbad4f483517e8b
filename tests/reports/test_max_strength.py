"""The strength at which all weights are zero."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.optimize import brentq
from sklearn import linear_model
from sklearn.datasets import load_diabetes

import jaxreg
from tests.support.training import train

GRADS = np.random.default_rng(0).normal(size=(6, 4))
LARGEST = abs(GRADS).max()


@pytest.fixture(scope="module")
def diabetes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of unit norm, centred targets, and the gradient at zero weights."""
    features, target = load_diabetes(return_X_y=True)
    target = target - target.mean()
    return features, target, -features.T @ target / len(target)


def rms(leaf: np.ndarray) -> np.ndarray:
    return np.sqrt((leaf**2).mean(1))


def sparse_group(grads: np.ndarray) -> float:
    """The root, per row, of `||soft(g, f / 2)|| = f sqrt(n)`."""

    def gap(factor: float, row: np.ndarray) -> float:
        beyond = np.maximum(abs(row) - 0.5 * factor, 0)
        return np.linalg.norm(beyond) - factor * len(row) ** 0.5

    return max(brentq(gap, 1e-6, 10, args=(row,), xtol=1e-14) for row in grads)


CLOSED_FORMS = {
    "L1": (jaxreg.L1(1.0), LARGEST),
    "L1 of strength 0.01": (jaxreg.L1(0.01), LARGEST / 0.01),
    "ElasticNet": (jaxreg.ElasticNet(1.0, 5.0), LARGEST),
    "L2": (jaxreg.L2(1.0), np.inf),
    "nothing": (jaxreg.L1(0.0), 0.0),
    "GroupLasso": (jaxreg.GroupLasso(1.0, group_axis=0), rms(GRADS).max()),
    "SparseGroupLasso": (jaxreg.SparseGroupLasso(0.5, 1.0, 0), sparse_group(GRADS)),
    "NuclearNorm": (jaxreg.NuclearNorm(1.0), np.linalg.norm(GRADS, 2)),
    "L0": (jaxreg.L0(1.0), 0.0),
    "MCP": (jaxreg.MCP(1.0, knot=2.0), LARGEST),
    "scaled": (jaxreg.scaled(jaxreg.L1(1.0), 4.0), LARGEST / 4),
    "nonnegative": (jaxreg.nonnegative(jaxreg.L1(1.0)), -GRADS.min()),
    "weighted": (
        jaxreg.weighted(jaxreg.L1(1.0), np.array([1.0, 2.0, 3.0, 4.0])),
        (abs(GRADS) / [1, 2, 3, 4]).max(),
    ),
    "weight 0 of entries": (
        jaxreg.weighted(jaxreg.L1(1.0), np.array([0.0, 1.0, 1.0, 1.0])),
        abs(GRADS[:, 1:]).max(),
    ),
    "weight 0 of groups": (
        jaxreg.weighted(
            jaxreg.GroupLasso(1.0, group_axis=0),
            np.array([[0.0], [1.0], [1.0], [0.0], [1.0], [1.0]]),
        ),
        rms(GRADS[[1, 2, 4, 5]]).max(),
    ),
    "weight 0 of nonnegative entries": (
        jaxreg.nonnegative(
            jaxreg.weighted(jaxreg.L1(1.0), np.array([0.0, 1.0, 1.0, 1.0]))
        ),
        -GRADS[:, 1:].min(),
    ),
    "weight 0 of a leaf": (jaxreg.weighted(jaxreg.NuclearNorm(1.0), 0.0), 0.0),
    "scaled by 0": (jaxreg.scaled(jaxreg.L1(1.0), 0.0), 0.0),
    # Differences leave the mean of a line free, at every strength.
    "TotalVariation": (jaxreg.TotalVariation(1.0, axis=0), np.inf),
    "envelope": (jaxreg.envelope(jaxreg.L1(1.0), 1.0), np.inf),
}


@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_the_strength_is_that_of_the_closed_form(name: str, x64) -> None:
    penalty, expected = CLOSED_FORMS[name]
    found = jaxreg.max_strength(penalty, GRADS)
    # Bisection to neighbours in float64.
    np.testing.assert_allclose(found.overall, expected, rtol=1e-12)


def test_leaves_without_a_penalty_are_left_out() -> None:
    grads = {"bias": np.full(3, 7.0), "first": GRADS, "last": 100 * GRADS}
    rows = [
        ("first", jaxreg.L1(1.0)),
        ("last", jaxreg.scaled(jaxreg.GroupLasso(1.0, group_axis=0), 0.0)),
    ]
    weights = {"first": 1.0, "last": 0.0}
    for penalty in (
        jaxreg.by_path(rows),
        jaxreg.by_path([("first|last", jaxreg.weighted(jaxreg.L1(1.0), weights))]),
    ):
        found = jaxreg.max_strength(penalty, grads)
        # Bisection to neighbours in float32, of gradients rounded to it.
        np.testing.assert_allclose(found.overall, LARGEST, rtol=3e-7)
        assert found.overall == found.per_leaf["first"]


def test_a_grid_starts_at_the_strength_without_free_entries() -> None:
    penalty = jaxreg.weighted(jaxreg.L1(1.0), np.array([0.0, 1.0, 1.0]))
    largest = jaxreg.max_strength(penalty, np.array([1e-8, 0.5, 0.2])).overall
    grid = jaxreg.model_selection.strength_grid(largest, 3, ratio=0.01)
    # Powers of ten times a half, in float32.
    np.testing.assert_allclose(grid, [0.5, 0.05, 0.005], rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
@pytest.mark.slow
def test_the_strength_in_float32_is_right_to_its_rounding(scale: float) -> None:
    grads = jnp.asarray(scale * GRADS, jnp.float32)
    for name in ("L1", "GroupLasso", "NuclearNorm"):
        penalty, expected = CLOSED_FORMS[name]
        found = jax.jit(jaxreg.max_strength)(penalty, grads).overall
        # Some units of float32, which the norms take.
        np.testing.assert_allclose(found, scale * expected, rtol=2e-6)


@pytest.mark.slow
def test_residual_penalties_are_right_to_64_roundings(x64) -> None:
    grads = {"first": GRADS, "skip": GRADS[:, :2]}
    penalty = jaxreg.Hierarchical(1.0, 3.0, skip=1)
    duals = np.linalg.norm(GRADS[:, :2], axis=1) + 3 * abs(GRADS).sum(1)
    found = jaxreg.max_strength(penalty, grads)
    # 64 units of float64, times the ratio of the bound's sum to one gradient.
    np.testing.assert_allclose(found.overall, duals.max(), rtol=1e-12)
    assert found.per_leaf["skip"] == found.per_leaf["first"] == found.overall


def test_each_leaf_has_its_strength_and_free_leaves_zero() -> None:
    grads = {"bias": np.full(3, 9.0), "embed": GRADS, "kernel": 2 * GRADS}
    penalty = jaxreg.by_path(
        [("embed", jaxreg.GroupLasso(1.0, 0)), ("kernel", jaxreg.L1(2.0))]
    )
    found = jaxreg.max_strength(penalty, grads)
    expected = {"bias": 0.0, "embed": rms(GRADS).max(), "kernel": LARGEST}
    for name, strength in expected.items():
        np.testing.assert_allclose(found.per_leaf[name], strength, rtol=1e-6)
    np.testing.assert_allclose(found.overall, max(expected.values()), rtol=1e-6)


def test_zero_gradients_need_no_strength() -> None:
    assert jaxreg.max_strength(jaxreg.L1(1.0), jnp.zeros(3)).overall == 0.0
    assert jaxreg.max_strength(jaxreg.L2(1.0), jnp.zeros(3)).overall == 0.0


def test_the_strength_of_the_lasso_on_diabetes_is_known(diabetes, x64) -> None:
    found = float(jaxreg.max_strength(jaxreg.L1(1.0), diabetes[2]).overall)
    assert round(found, 4) == 2.1480


@pytest.mark.parametrize("l1_ratio", [0.2, 0.7, 1.0])
def test_the_elastic_nets_strength_starts_scikit_learns_path(
    l1_ratio: float, diabetes, x64
) -> None:
    """skglm's L1_plus_L2.alpha_max leaves l1_ratio out, and its path begins late."""
    features, target, grads = diabetes
    penalty = jaxreg.ElasticNet.from_sklearn(1.0, l1_ratio)
    found = float(jaxreg.max_strength(penalty, grads).overall)
    np.testing.assert_allclose(found, abs(grads).max() / l1_ratio, rtol=1e-12)
    model = linear_model.ElasticNetCV(
        l1_ratio=l1_ratio, fit_intercept=False, alphas=5, eps=0.5
    )
    np.testing.assert_allclose(model.fit(features, target).alphas_[0], found)
    for share, is_zero in ((1.001, True), (0.999, False)):
        one = linear_model.ElasticNet(
            share * found, l1_ratio=l1_ratio, fit_intercept=False, tol=1e-12
        )
        assert (not np.any(one.fit(features, target).coef_)) == is_zero


@pytest.mark.parametrize(
    "penalty",
    [
        jaxreg.L1(1.0),
        jaxreg.GroupLasso(1.0, group_axis=0),
        jaxreg.SparseGroupLasso(1.0, 0.5, group_axis=0),
        jaxreg.NuclearNorm(1.0),
    ],
)
@pytest.mark.slow
def test_the_solution_is_zero_just_above_the_strength_alone(
    penalty: jaxreg.Penalty, x64
) -> None:
    generator = np.random.default_rng(3)
    design, target = generator.normal(size=(40, 6)), generator.normal(size=(40, 4))

    def loss(w):
        return jnp.sum((design @ w - target) ** 2) / 80

    zero = jnp.zeros((6, 4))
    strength = jaxreg.max_strength(penalty, jax.grad(loss)(zero)).overall
    for share, is_zero in ((1.001, True), (0.999, False)):
        lifted = jaxreg.scaled(penalty, share * strength)
        rate = optax.cosine_decay_schedule(0.05, 2000)
        tx = jaxreg.regularize(optax.adam(rate), lifted, width=0.5)
        w, _ = train(tx, jax.grad(loss), jnp.ones((6, 4)), 2000)
        assert (not np.any(w)) == is_zero


def test_a_penalty_without_a_strength_raises() -> None:
    with pytest.raises(TypeError, match="a constraint has no strength"):
        jaxreg.max_strength(jaxreg.on_kernels(jaxreg.L2Ball(1.0)), {"kernel": GRADS})
    with pytest.raises(TypeError, match="has no prox, only a gradient"):
        jaxreg.max_strength(jaxreg.Orthogonality(1.0, group_axis=0), GRADS)
    with pytest.raises(ValueError, match="matches no leaf"):
        jaxreg.max_strength(jaxreg.on_kernels(jaxreg.L1(1.0)), {"w": GRADS})


def test_a_second_call_compiles_nothing() -> None:
    grads = jnp.asarray(GRADS, jnp.float32)
    jaxreg.max_strength(jaxreg.L1(1.0), grads)
    count = jaxreg.reports.measure._smallest_factor._cache_size()
    jaxreg.max_strength(jaxreg.L1(0.5), 2 * grads)
    assert jaxreg.reports.measure._smallest_factor._cache_size() == count
