"""`ftrl`: the formula of the paper, its objective, its solutions, its support."""

from typing import Any

import jax
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


def paper(grads, rate, beta, l1, l2, first=0.0, per_step=False):
    """Algorithm 1 of McMahan et al., one coordinate and one number at a time.

    With `per_step` both strengths count anew at every step, as McMahan 2011 has it.
    """
    rows = np.zeros((len(grads) + 1, grads.shape[1]))
    for i in range(grads.shape[1]):
        z, n, w = 0.0, first, 0.0
        for t, g in enumerate(grads[:, i], start=1):
            sigma = (np.sqrt(n + g * g) - np.sqrt(n)) / rate
            z += g - sigma * w
            n += g * g
            times = t if per_step else 1
            if abs(z) <= times * l1:
                w = 0.0
            else:
                below = (beta + np.sqrt(n)) / rate + times * l2
                w = -(z - np.sign(z) * times * l1) / below
            rows[t, i] = w
    return rows


def once(count: Any) -> Any:
    return count == 0


PAPER = [(0.3, 1.0, 2.0, 0.0, 0.0), (0.1, 0.0, 1.0, 0.7, 0.1), (2.0, 0.5, 5.0, 3.0, 0)]


@pytest.mark.parametrize(("rate", "beta", "l1", "l2", "first"), PAPER)
def test_with_the_penalty_once_per_run_it_is_the_paper(
    rate, beta, l1, l2, first, x64
) -> None:
    grads = given_grads(200, (6,)) * [1, 0.1, 0.01, -1, 3, 1] - [0.4, 0, 0, 0, 1, 0.2]
    expected = paper(grads, rate, beta, l1, l2, first)
    for penalty in (jaxreg.ElasticNet(l1, l2 / 2), jaxreg.L1(l1)):
        if l2 and isinstance(penalty, jaxreg.L1):
            continue
        tx = jaxreg.ftrl(rate, penalty, beta, first, schedule=once)
        found = answers(tx, grads, np.zeros(6))
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)
        np.testing.assert_array_equal(found == 0, expected == 0)
    assert np.any(expected[20] == 0) and np.any(expected[20] != 0)


@pytest.mark.parametrize(("rate", "beta", "l1", "l2", "first"), PAPER)
def test_by_default_the_penalty_counts_at_every_step(
    rate, beta, l1, l2, first, x64
) -> None:
    grads = given_grads(200, (6,)) * [1, 0.1, 0.01, -1, 3, 1] - [0.4, 0, 0, 0, 1, 0.2]
    l1, l2 = l1 / 5, l2 / 10
    expected = paper(grads, rate, beta, l1, l2, first, per_step=True)
    tx = jaxreg.ftrl(rate, jaxreg.ElasticNet(l1, l2 / 2), beta, first)
    found = answers(tx, grads, np.zeros(6))
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)


def test_the_penalty_of_the_paper_fades_and_ours_does_not(x64) -> None:
    start = jnp.zeros(3)
    ours = jaxreg.ftrl(0.1, jaxreg.L1(STRENGTH), 10.0)
    theirs = jaxreg.ftrl(0.1, jaxreg.L1(STRENGTH), 10.0, schedule=once)
    found = trajectory(ours, gradient, start, 20_000)[-1]
    np.testing.assert_allclose(found, SOLUTION, atol=1e-9)
    np.testing.assert_allclose(trajectory(theirs, gradient, start, 20_000)[-1], CENTRE)


def test_off_zero_it_is_adagrad_on_loss_and_penalty(x64) -> None:
    x, n, rate, beta = np.full(3, 2.0), np.zeros(3), 0.05, 1.0
    tx = jaxreg.ftrl(rate, jaxreg.L1(STRENGTH), beta)
    path = trajectory(tx, gradient, jnp.asarray(x), 40)
    for row in path:
        grad = CURVATURE * (x - CENTRE)
        n = n + grad**2
        x = x - rate * (grad + STRENGTH) / (beta + np.sqrt(n))
        np.testing.assert_allclose(row, x, rtol=1e-12)
    assert np.all(x > 0)


def test_the_error_falls_faster_than_any_power_of_t(x64) -> None:
    rate = 0.05
    tx = jaxreg.ftrl(rate, jaxreg.L1(STRENGTH), beta=0.0)
    path = trajectory(tx, gradient, jnp.full(3, 2.0), 20_000)
    error = np.abs(path - SOLUTION)
    # At rest g is -strength, so that n grows like strength^2 t and the error is
    # multiplied by 1 - curvature rate / (strength sqrt(t)) at step t.
    for coordinate, early, late in ((0, 2_000, 8_000), (0, 5_000, 10_000)):
        fall = np.log(error[early, coordinate] / error[late, coordinate])
        expected = 2 * rate / STRENGTH * (np.sqrt(late) - np.sqrt(early))
        np.testing.assert_allclose(fall, expected, rtol=0.05)
    assert not np.any(path[2_000:, 2])


@pytest.mark.parametrize("t", [1, 2, 7, 30])
def test_its_answers_minimise_the_objective(t, x64) -> None:
    rate, strength, beta = 0.2, 0.4, 0.5
    start = np.array([[0.3, -0.2], [0.1, 0.0], [1.0, 0.9]])
    grads = given_grads(t, (3, 2))
    roots = np.sqrt(np.cumsum(np.concatenate([np.zeros((1, 3, 2)), grads**2]), 0))
    growth = np.concatenate([[beta + roots[0]], np.diff(roots, axis=0)]) / rate

    def cost(x: Any, place: Any, norm: Any, past: np.ndarray) -> float:
        """The sum of all gradients, penalties, and squares around the past points."""
        where = (slice(None), *np.atleast_1d(place))
        squares = growth[where] * (x - past[where]) ** 2 / 2
        return np.sum(grads[where] * x) + t * strength * norm + np.sum(squares)

    def past(penalty: Any) -> tuple[np.ndarray, np.ndarray]:
        path = answers(jaxreg.ftrl(rate, penalty, beta), grads, start)
        return path[-1], np.concatenate([[start], path[:-1]])

    last, points = past(jaxreg.L1(strength))
    for place in np.ndindex(3, 2):
        best = optimize.minimize_scalar(
            lambda x, place=place: cost(x, place, np.abs(x), points),
            bounds=(-20, 20),
            method="bounded",
            options={"xatol": 1e-10},
        )
        # The square root of rounding, which is what a minimiser of values can see.
        np.testing.assert_allclose(last[place], best.x, atol=1e-6)
    last, points = past(jaxreg.GroupLasso(strength, group_axis=0))
    for row in range(3):
        best = optimize.minimize(
            lambda x, row=row: cost(x, row, np.sqrt(2) * np.linalg.norm(x), points),
            [1.0, -1.0],
            method="Nelder-Mead",
            options={"xatol": 1e-10, "fatol": 1e-15, "maxfev": 4000},
        )
        np.testing.assert_allclose(last[row], best.x, atol=1e-6)


def test_without_a_penalty_it_is_adagrad(x64) -> None:
    start = np.linspace(-1.0, 1.0, 4)
    grads = given_grads(50, (4,))
    expected = answers(optax.adagrad(0.1, 0.1, eps=0.0), grads, start)
    for tx in (
        jaxreg.ftrl(0.1, jaxreg.L1(0.0), 0.0, 0.1),
        jaxreg.ftrl(0.1, jaxreg.L1(9.0), 0.0, 0.1, schedule=lambda count: 0.0 * count),
    ):
        np.testing.assert_allclose(answers(tx, grads, start), expected, rtol=1e-11)


@pytest.mark.parametrize(
    "penalty", [jaxreg.L1(0.1), jaxreg.GroupLasso(0.1, group_axis=0)], ids=repr
)
def test_without_beta_entries_without_gradient_are_left_alone(penalty) -> None:
    start = jnp.array([[1.0, 0.0], [-2.0, 3.0], [0.5, 0.5]])
    grads = given_grads(30, (3, 2)).astype("f4")
    grads[:, 0] = 0.0
    # The first gradient of the last entry comes late, and so small that it vanishes.
    grads[:20, 2, 1], grads[20:, 2, 1] = 0.0, 1e-30
    path = answers(jaxreg.ftrl(0.1, penalty, beta=0.0), grads, start)
    assert np.all(np.isfinite(path))
    np.testing.assert_array_equal(path[:, 0], np.tile(start[0], (31, 1)))
    np.testing.assert_array_equal(path[:20, 2, 1], 0.5)
    assert np.all(path[1:, 1] != start[1])


def test_a_gradient_through_it_has_no_nan_where_nothing_was_seen() -> None:
    tx, start = jaxreg.ftrl(0.1, jaxreg.L1(0.1), beta=0.0), jnp.array([1.0, 2.0])

    def after(grad: Any) -> Any:
        updates, _ = tx.update(grad, tx.init(start), start)
        return jnp.sum(start + updates)

    assert np.all(np.isfinite(jax.grad(after)(jnp.array([0.0, 1.0]))))


def test_learning_rate_zero_moves_nothing() -> None:
    start = jnp.array([0.7, -0.3, 0.0])
    for beta in (0.0, 1.0):
        path = answers(jaxreg.ftrl(0.0, jaxreg.L1(1.0), beta), jnp.ones((5, 3)), start)
        np.testing.assert_allclose(path, np.tile(start, (6, 1)), rtol=2e-7)


def test_an_injected_learning_rate_can_change_in_flight(x64) -> None:
    # The sums are in units of the learning rate: each step keeps its own.
    rates = jnp.array([0.1, 0.05, 0.3, 0.0, 0.2])
    tx = optax.inject_hyperparams(jaxreg.ftrl)(
        learning_rate=lambda count: rates[count], penalty=jaxreg.L1(0.1)
    )
    grads = -np.abs(given_grads(5, (3,)))
    x, n, found = np.ones(3), np.zeros(3), answers(tx, grads, jnp.ones(3))
    for rate, grad, row in zip(rates, grads, found[1:], strict=True):
        n = n + grad**2
        x = x - rate * (grad + 0.1) / (1 + np.sqrt(n))
        np.testing.assert_allclose(row, x, rtol=1e-12)


def test_bad_arguments_raise_at_the_call() -> None:
    l1 = jaxreg.L1(1.0)
    with pytest.raises(TypeError, match=r"a number, which falls.*jaxreg.prox_adagrad"):
        jaxreg.ftrl(optax.constant_schedule(0.1), l1)
    with pytest.raises(
        ValueError, match=r"ftrl: learning_rate is -1.0; allowed: a fin"
    ):
        jaxreg.ftrl(-1.0, l1)
    with pytest.raises(ValueError, match="ftrl: beta is nan; allowed: a finite number"):
        jaxreg.ftrl(0.1, l1, float("nan"))
    with pytest.raises(ValueError, match=r"initial_accumulator_value is -0.1; allowed"):
        jaxreg.ftrl(0.1, l1, 1.0, -0.1)


def test_a_prox_without_varying_steps_raises_with_the_fix() -> None:
    tx, params = jaxreg.ftrl(0.1, jaxreg.NuclearNorm(1.0)), jnp.ones((3, 2))
    with pytest.raises(ValueError, match=r"no prox is known.*regularize"):
        tx.update(params, tx.init(params), params)
