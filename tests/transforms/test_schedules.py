"""`schedule=`, wherever a strength acts: the solution is that of the last factor."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from tests.support.training import train
from tests.transforms.test_proximal import cosine, lasso, run

STEPS = 8000
LATE = STEPS // 2
SCHEDULES = {
    "warm-up": (optax.linear_schedule(0.0, 1.0, LATE), 1.0),
    "cubic": (optax.polynomial_schedule(0.0, 1.0, 3, LATE), 1.0),
    "cosine": (optax.cosine_decay_schedule(1.0, LATE, alpha=0.25), 0.25),
    "to 0": (optax.linear_schedule(1.0, 0.0, LATE), 0.0),
}
WAYS: dict[str, Any] = {
    "regularize": lambda p, s: jaxreg.regularize(
        optax.adam(cosine(0.02, STEPS)), p, schedule=s
    ),
    "prox_sgd": lambda p, s: jaxreg.prox_sgd(0.01, p, schedule=s),
    "prox_adam": lambda p, s: jaxreg.prox_adam(cosine(0.02, STEPS), p, schedule=s),
    "shrink": lambda p, s: optax.chain(
        optax.sgd(0.01), jaxreg.shrink(p, 0.01, schedule=s)
    ),
    "add_penalty_gradient": lambda p, s: optax.chain(
        jaxreg.add_penalty_gradient(p, schedule=s), optax.adam(cosine(0.02, STEPS))
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_solution_is_that_of_the_last_factor(way: str, name: str) -> None:
    schedule, last = SCHEDULES[name]
    with jax.enable_x64(True):
        found = run(WAYS[way](jaxreg.L1(1.5), schedule), np.zeros(2), STEPS)
    expected = lasso(1.5 * last)
    # The last steps of a cosine; a subgradient stays within one of its steps of 0.
    np.testing.assert_allclose(found, expected, atol=1e-4)
    if way != "add_penalty_gradient":
        np.testing.assert_array_equal(found == 0, expected == 0)


COUNTS = np.arange(1, LATE + 1)
SUMS = {
    "dual_average": (
        lambda p, s: jaxreg.dual_average(0.01, p, schedule=s),
        0.01 * np.sqrt(COUNTS).sum(),
    ),
    "ftrl": (lambda p, s: jaxreg.ftrl(0.5, p, schedule=s), 0.5 * LATE),
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_over_all_steps_keep_every_factor(name: str) -> None:
    build, expected = SUMS[name]
    # The penalty of the first half of the steps, and none later.
    tx = build(jaxreg.L1(1.0), optax.piecewise_constant_schedule(1.0, {LATE: 0.0}))
    with jax.enable_x64(True):
        _, state = train(tx, jnp.zeros_like, jnp.zeros(2), STEPS)
    np.testing.assert_allclose(state.penalty_sum, expected, rtol=1e-9)


@pytest.mark.parametrize("way", WAYS)
def test_a_schedule_that_is_no_function_raises(way: str) -> None:
    with pytest.raises(TypeError, match=r"schedule is 0\.5; allowed: a function"):
        WAYS[way](jaxreg.L1(1.0), 0.5)
