"""A scalar problem and a group problem with known solutions, for running sums."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

import jaxreg
from tests.support.training import trajectory

# f(x) = sum curvature (x - centre)^2 / 2, and L1(0.5): one coordinate is 0.
CURVATURE, CENTRE = np.array([1.0, 100.0, 1.0]), np.array([1.0, 0.02, 0.3])
SOLUTION, STRENGTH = np.array([0.5, 0.015, 0.0]), 0.5
STEPS = 20_000


def gradient(x: Any) -> Any:
    return (jnp.asarray(CURVATURE) * (x - jnp.asarray(CENTRE))).astype(x.dtype)


def given_grads(steps: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).normal(0.4, 1.0, size=(steps, *shape))


def from_the_solution(tx: Any, dtype: str) -> tuple[np.ndarray, np.ndarray, float]:
    """A run that begins there, where it should be at each step, and its rounding."""
    path = trajectory(tx, gradient, jnp.asarray(SOLUTION, dtype), STEPS)
    # A sum of that many forces rounds a new one by eps / 2 of it; the loss pulls back
    # with a curvature of at least 1.
    slack = np.finfo(dtype).eps * STEPS * STRENGTH
    return path, np.tile(SOLUTION, (STEPS, 1)), slack


def from_the_solution_of_groups(
    build: Callable[[Any], Any], dtype: str
) -> tuple[np.ndarray, np.ndarray, float]:
    """The same with two rows, of which a group lasso leaves one."""
    centre = np.array([[3.0, 4.0], [0.5, 0.0]])
    # The norm 5 loses strength sqrt(2) = 1, and the second row is within it.
    penalty = jaxreg.GroupLasso(1 / np.sqrt(2), group_axis=0)
    solution = np.array([[2.4, 3.2], [0.0, 0.0]])
    path = trajectory(
        build(penalty),
        lambda x: x - jnp.asarray(centre, dtype),
        jnp.asarray(solution, dtype),
        STEPS,
    )
    return path, np.tile(solution, (STEPS, 1, 1)), np.finfo(dtype).eps * STEPS
