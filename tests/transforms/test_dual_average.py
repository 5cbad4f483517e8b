"""`dual_average`: its objective, its solutions, its rate, and its support."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import optimize

import jaxreg
from tests.support.known_solutions import (
    CENTRE,
    CURVATURE,
    SOLUTION,
    STRENGTH,
    given_grads,
    gradient,
)
from tests.support.training import answers, trajectory


def soft(v: np.ndarray, threshold: float) -> np.ndarray:
    return np.sign(v) * np.maximum(np.abs(v) - threshold, 0)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_error_falls_like_the_pull_to_the_start(momentum, x64) -> None:
    rate, start = 0.01, np.array([2.0, 2.0, 2.0])
    tx = jaxreg.dual_average(rate, jaxreg.L1(STRENGTH), momentum)
    path = trajectory(tx, gradient, jnp.asarray(start), 20_000)
    # Off zero, y_t - x_0 = sqrt(1 - 1/t) (y_{t-1} - x_0) - rate (g + strength sign):
    # at rest, rate curvature error = (x_0 - x) / (2 t).
    expected = (start - SOLUTION) / (2 * rate * CURVATURE)
    for t in (5_000, 20_000):
        found = t * (path[t - 1] - SOLUTION)
        np.testing.assert_allclose(found[:2], expected[:2], rtol=0.02)
    if momentum == 0:
        assert not np.any(path[1000:, 2])


def test_off_zero_it_is_sgd_with_a_pull_to_the_start(x64) -> None:
    rate, start, x = 0.01, np.full(3, 2.0), np.full(3, 2.0)
    tx = jaxreg.dual_average(rate, jaxreg.L1(STRENGTH))
    path = trajectory(tx, gradient, jnp.asarray(start), 60)
    for t in range(1, 61):
        force = CURVATURE * (x - CENTRE) + STRENGTH
        x = start + np.sqrt(1 - 1 / t) * (x - start) - rate * force
        np.testing.assert_allclose(path[t - 1], x, rtol=1e-12)
    assert np.all(x > 0)


@pytest.mark.parametrize("momentum", [0.0, 0.7])
def test_it_is_the_algorithm_of_the_paper(momentum, x64) -> None:
    rates, factors = [0.3, 0.1, 0.0, 0.2, 0.5] * 8, [1.0, 0.0, 2.0, 0.5] * 10
    grads, start = given_grads(40, (5,)), np.linspace(-1.0, 1.0, 5)
    tx = jaxreg.dual_average(
        lambda count: jnp.asarray(rates)[count],
        jaxreg.L1(STRENGTH),
        momentum,
        schedule=lambda count: jnp.asarray(factors)[count],
    )
    found = answers(tx, grads, start)
    x, total, alpha = start, np.zeros(5), 0.0
    for t, grad in enumerate(grads, start=1):
        weight = rates[t - 1] * np.sqrt(t)
        total, alpha = total + weight * grad, alpha + weight * factors[t - 1]
        near = soft(start - total / np.sqrt(t), alpha * STRENGTH / np.sqrt(t))
        x = momentum * x + (1 - momentum) * near
        np.testing.assert_allclose(found[t], x, rtol=1e-12, atol=1e-13)
        assert momentum or np.array_equal(found[t] == 0, near == 0)


def test_with_a_rate_over_sqrt_t_it_is_the_closed_form_of_xiao(x64) -> None:
    rate, grads = 0.2, given_grads(60, (50,)) - 0.2
    tx = jaxreg.dual_average(
        lambda count: rate / jnp.sqrt(count + 1.0), jaxreg.L1(STRENGTH)
    )
    found = answers(tx, grads, np.zeros(50))
    for t in range(1, 61):
        mean = grads[:t].mean(axis=0)
        kept = np.where(np.abs(mean) <= STRENGTH, 0, mean - STRENGTH * np.sign(mean))
        expected = -np.sqrt(t) * rate * kept
        np.testing.assert_allclose(found[t], expected, atol=1e-13)
    assert 0 < np.sum(found[5] == 0) < 50


@pytest.mark.parametrize("t", [1, 2, 7, 30])
def test_its_answers_minimise_the_objective(t, x64) -> None:
    rate, strength, start = 0.1, 0.4, np.array([[0.3, -0.2], [0.1, 0.0], [1.0, 0.9]])
    grads = given_grads(t, (3, 2))
    weights = rate * np.sqrt(np.arange(1, t + 1))
    total = np.tensordot(weights, grads, axes=1)

    def answer(penalty: Any) -> np.ndarray:
        return answers(jaxreg.dual_average(rate, penalty), grads, start)[-1]

    def cost(x: Any, place: Any, norm: Any) -> float:
        square = np.sqrt(t) * np.sum((x - start[place]) ** 2) / 2
        return np.sum(total[place] * x) + weights.sum() * strength * norm + square

    lasso = answer(jaxreg.L1(strength))
    for place in np.ndindex(3, 2):
        best = optimize.minimize_scalar(
            lambda x, place=place: cost(x, place, np.abs(x)),
            bounds=(-20, 20),
            method="bounded",
            options={"xatol": 1e-10},
        )
        # The square root of rounding, which is what a minimiser of values can see.
        np.testing.assert_allclose(lasso[place], best.x, atol=1e-6)
    groups = answer(jaxreg.GroupLasso(strength, group_axis=0))
    for row in range(3):
        best = optimize.minimize(
            lambda x, row=row: cost(x, row, np.sqrt(2) * np.linalg.norm(x)),
            [1.0, -1.0],
            method="Nelder-Mead",
            options={"xatol": 1e-10, "fatol": 1e-15, "maxfev": 4000},
        )
        np.testing.assert_allclose(groups[row], best.x, atol=1e-6)


def test_without_a_penalty_it_is_dual_averaging(x64) -> None:
    grads, start = given_grads(20, (4,)), np.ones(4)
    roots = np.sqrt(np.arange(1, 21))
    expected = start - np.cumsum(0.1 * roots[:, None] * grads, 0) / roots[:, None]
    for tx in (
        jaxreg.dual_average(0.1, jaxreg.L1(0.0)),
        jaxreg.dual_average(0.1, jaxreg.L1(9.0), schedule=lambda count: 0.0 * count),
    ):
        np.testing.assert_allclose(answers(tx, grads, start)[1:], expected, 1e-12)


def test_a_warm_up_from_rate_zero_moves_nothing_and_makes_no_nan() -> None:
    start = jnp.array([0.7, -0.3, 0.0], jnp.float32)
    for penalty in (
        jaxreg.L1(1.0),
        jaxreg.GroupLasso(1.0, group_axis=0),
        jaxreg.L1Ball(0.1),
    ):
        tx = jaxreg.dual_average(
            lambda count: jnp.where(count < 5, 0.0, 0.1), penalty, 0.5
        )
        shaped = start.reshape(3, 1)
        path = answers(tx, jnp.ones((10, 3, 1)), shaped)
        np.testing.assert_array_equal(path[:6], np.tile(shaped, (6, 1, 1)))
        assert np.all(np.isfinite(path)) and np.all(np.any(path[6:] != shaped, axis=1))


def test_zeros_are_exact_once_momentum_has_ended() -> None:
    steps = 300
    tx = jaxreg.dual_average(
        0.1, jaxreg.L1(1.0), lambda count: jnp.where(count < 200, 0.9, 0.0)
    )
    grads = given_grads(steps, (6,)).astype("f4") / 10
    path = answers(tx, grads, jnp.ones(6))
    assert np.all(path[199] != 0)
    assert not np.any(path[201:])


def test_an_edit_of_the_params_is_undone_without_a_new_init(x64) -> None:
    tx, start = jaxreg.dual_average(0.1, jaxreg.L1(0.1)), jnp.ones(2)
    state = tx.init(start)
    updates, state = tx.update(jnp.ones(2), state, start)
    x = optax.apply_updates(start, updates)
    for edited in (x, 5 * x):
        updates, _ = tx.update(jnp.ones(2), state, edited)
        np.testing.assert_allclose(edited + updates, x - 0.11 + 0.11 * (1 - 0.5**0.5))
    updates, _ = tx.update(jnp.ones(2), tx.init(5 * x), 5 * x)
    np.testing.assert_allclose(5 * x + updates, 5 * x - 0.11)


def test_a_rate_that_decays_to_zero_brings_the_start_back(x64) -> None:
    def last(rate: Any) -> Any:
        tx = jaxreg.dual_average(rate, jaxreg.L1(STRENGTH))
        return trajectory(tx, gradient, jnp.full(3, 2.0), 20_000)[-1]

    decayed = last(optax.cosine_decay_schedule(0.01, 20_000))
    assert abs(decayed[0] - 0.5) > 0.1
    assert abs(last(0.01)[0] - 0.5) < 0.004


def test_bad_arguments_raise_at_the_call() -> None:
    l1 = jaxreg.L1(1.0)
    for momentum in (1.0, 1.5):
        with pytest.raises(ValueError, match=r"momentum is 1.*from 0 to below 1"):
            jaxreg.dual_average(0.1, l1, momentum)
    with pytest.raises(ValueError, match=r"momentum is -0.1; allowed: a finite number"):
        jaxreg.dual_average(0.1, l1, -0.1)
    with pytest.raises(TypeError, match="dual_average: momentum is 'heavy'"):
        jaxreg.dual_average(0.1, l1, "heavy")
    with pytest.raises(ValueError, match=r"learning_rate is -0.1; allowed: a finite"):
        jaxreg.dual_average(-0.1, l1)
    with pytest.raises(TypeError, match="dual_average: learning_rate is None"):
        jaxreg.dual_average(None, l1)
