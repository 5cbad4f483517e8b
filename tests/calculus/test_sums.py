"""Sums of penalties: their joint prox against independent solutions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize
from sklearn import linear_model

import jaxreg
from tests.support.training import train

L1 = jaxreg.L1(0.3)
NET = jaxreg.ElasticNet(0.3, 0.2)
RADIUS = 0.8
BALL = jaxreg.L2Ball(RADIUS)
ROWS = jaxreg.GroupLasso(0.2, group_axis=0)
V = np.random.default_rng(0).normal(size=(4, 3))
STEPS = 10.0 ** np.random.default_rng(1).uniform(-1, 1, size=(4, 3))


def on_sphere(solution):
    """The solution at the multiplier of `|w|^2 / 2` at which its norm is the radius."""

    def excess(multiplier: float) -> float:
        return np.linalg.norm(solution(multiplier)) - RADIUS

    return solution(optimize.brentq(excess, 1e-9, 1e3, xtol=1e-14, rtol=1e-14))


@pytest.mark.parametrize(("penalty", "l2"), [(L1, 0.0), (NET, 0.2)], ids=["L1", "net"])
@pytest.mark.parametrize("step", [0.7, STEPS], ids=["one step", "steps"])
def test_the_prox_in_a_ball_meets_the_radius_by_one_multiplier(
    penalty, l2, step, x64
) -> None:
    def solution(multiplier):
        size = np.maximum(abs(V) - 0.3 * step, 0)
        return np.sign(V) * size / (1 + (2 * l2 + multiplier) * step)

    found = (penalty + BALL).prox(jnp.asarray(V), jnp.asarray(step))
    # Rounding of float64, and of the two searches.
    np.testing.assert_allclose(found, on_sphere(solution), atol=1e-11)


def test_regularize_minimises_a_loss_with_l1_in_a_ball() -> None:
    design = np.random.default_rng(2).normal(size=(30, 6))
    target = design @ np.array([2.0, -1.5, 0.0, 0.5, 0.0, 0.0])

    def solution(multiplier):
        strength = 0.3 + multiplier
        net = linear_model.ElasticNet(
            strength, l1_ratio=0.3 / strength, fit_intercept=False, tol=1e-10
        )
        return net.fit(design, target).coef_

    expected = on_sphere(solution)
    rate = optax.cosine_decay_schedule(0.05, 2000)
    tx = jaxreg.regularize(optax.adam(rate), L1 + BALL)

    def grads_of(w):
        return design.T @ (design @ w - target) / len(target)

    found, _ = train(tx, grads_of, jnp.zeros(6), 2000)
    # Adam's last steps in float32.
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(found == 0, expected == 0)


SUMS = {
    "net in balls": NET + jaxreg.L2Ball(0.4, group_axis=0),
    "positive lasso in a ball": jaxreg.nonnegative(L1) + BALL,
    "positive ball": jaxreg.NonNegative() + BALL,
    "positive net": jaxreg.NonNegative() + NET,
    "variation in a ball": jaxreg.TotalVariation(0.3, axis=0) + BALL,
    "nuclear norm in a ball": jaxreg.NuclearNorm(0.3) + BALL,
    "group lasso in balls": ROWS + jaxreg.L2Ball(0.4, group_axis=0),
    "nuclear norm and ridge": jaxreg.NuclearNorm(0.3) + jaxreg.L2(0.2),
    "MCP and ridge": jaxreg.MCP(0.3, knot=2.0) + jaxreg.L2(0.2),
    "ball and ridge": BALL + jaxreg.L2(0.2),
    "weighted groups": L1 + jaxreg.weighted(ROWS, jnp.array([[1.0, 2.0, 0.0, 1.0]]).T),
    "lasso and group net": L1 + jaxreg.grouped(NET, group_axis=0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SUMS)
def test_no_move_lowers_the_objective_of_a_sum(name: str, x64) -> None:
    penalty = SUMS[name]
    moves = np.random.default_rng(3).normal(size=(40, 4, 3))
    moves *= np.logspace(-4, 0, 40)[:, None, None]

    @jax.jit
    def heights(step):
        def height(x):
            return penalty.value(x) + jnp.sum((x - V) ** 2 / (2 * step))

        # A short prox puts a moved point on the set, if there is one.
        best = penalty.prox(jnp.asarray(V), step)
        near = jax.vmap(lambda move: penalty.prox(best + move, 1e-9))(moves)
        return height(best), jax.vmap(height)(near)

    for step in [0.7] + [STEPS] * penalty.facts.varying_step:
        found, others = heights(step)
        assert np.isfinite(found)
        assert found <= others.min()


def test_a_sum_with_every_weight_one_is_the_sparse_group_lasso() -> None:
    found = jaxreg.weighted(L1, 1.0) + ROWS
    expected = jaxreg.SparseGroupLasso(0.3, 0.2, group_axis=0)
    kernel, grads = jnp.asarray(V, "f4").at[1].set(0.0), jnp.asarray(STEPS, "f4")
    np.testing.assert_array_equal(found.prox(kernel, 0.7), expected.prox(kernel, 0.7))
    for method in (found.stationarity, expected.stationarity):
        np.testing.assert_allclose(
            method(kernel, grads), expected.stationarity(kernel, grads), rtol=1e-6
        )
    assert found.step_for(0.05) == pytest.approx(float(expected.step_for(0.05)))


def test_any_order_of_a_sum_has_one_prox() -> None:
    terms = [L1, jaxreg.L2(0.2), jaxreg.NonNegative(), BALL]
    kernel = jnp.asarray(V, "f4")
    expected = sum(terms).prox(kernel, 0.7)
    assert expected.min() == 0
    assert np.linalg.norm(expected) == pytest.approx(RADIUS, rel=1e-6)
    forms = {}
    for order in itertools.permutations(terms):
        penalty = sum(order)
        forms[repr(penalty)] = penalty
    assert len(forms) <= 4
    for penalty in forms.values():
        # One rounding of float32 each way.
        np.testing.assert_allclose(penalty.prox(kernel, 0.7), expected, rtol=1e-6)


def test_the_width_of_a_sum_in_a_ball_is_that_of_the_penalty() -> None:
    for penalty in (L1, jaxreg.L1(1e-4), NET, ROWS, jaxreg.nonnegative(L1)):
        assert (penalty + BALL).step_for(0.05) == penalty.step_for(0.05)


def test_steps_that_vary_raise_where_the_composition_is_inexact() -> None:
    penalty = jaxreg.TotalVariation(0.3, axis=0) + BALL
    with pytest.raises(ValueError, match=r"DecomposedSum.*: a step of shape \(4, 3\)"):
        penalty.prox(jnp.asarray(V), jnp.asarray(STEPS))


RULES = jaxreg.by_path([("kernel", L1)])
UNKNOWN = [
    (L1, jaxreg.MCP(0.3, knot=2.0), "no exact prox of this sum"),
    (ROWS, jaxreg.GroupLasso(0.2, group_axis=1), "no exact prox of this sum"),
    (jaxreg.TotalVariation(0.3, 0), ROWS, "no exact prox of this sum"),
    (jaxreg.NonNegative(), jaxreg.NuclearNorm(0.3), "no exact prox of this sum"),
    (L1, jaxreg.MinMaxNorm(0.5, 1.0), "no exact prox of this sum"),
    (L1 + BALL, jaxreg.L2Ball(0.4, group_axis=0), "no exact prox of this sum"),
    (RULES, jaxreg.L2(0.2), "Add the other penalty inside the rules"),
    (jaxreg.HoyerSquare(0.1), L1, "has no prox, only a gradient"),
]


@pytest.mark.parametrize(("first", "second", "message"), UNKNOWN, ids=repr)
def test_a_sum_without_a_rule_raises(first, second, message: str) -> None:
    for one, other in ((first, second), (second, first)):
        with pytest.raises(TypeError, match=message):
            _ = one + other
