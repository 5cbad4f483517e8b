"""Derivatives of projections at points where an entry meets the level."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg

# On the set with zeros: all of the zeros meet the level, which is 0.
POINT = np.array([0.5, 0.5, 0.0, 0.0])
ABOVE = POINT + 0.5
STEPS = [1.0, np.array([1.0, 2.0, 0.5, 4.0])]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("total", [0.0, 1.0])
def test_the_jacobian_keeps_the_sum_of_a_simplex(total, step, x64) -> None:
    point = total * POINT

    def prox(total: Any, v: Any) -> jax.Array:
        return jaxreg.Simplex(total).prox(v, step)

    by_total, by_point = jax.jacobian(prox, (0, 1))(total, point)
    np.testing.assert_allclose(by_total.sum(), 1, rtol=1e-14)
    np.testing.assert_allclose(by_point.sum(axis=0), 0, atol=1e-14)


@pytest.mark.parametrize("step", STEPS)
def test_groups_of_a_simplex_have_the_jacobian_of_one(step, x64) -> None:
    steps = np.stack([np.broadcast_to(step, 4), np.ones(4)])
    simplex = jaxreg.Simplex(1.0, group_axis=0)
    rows = jax.jacobian(lambda v: simplex.prox(v, steps))(np.stack([POINT, ABOVE]))
    alone = jax.jacobian(lambda v: jaxreg.Simplex(1.0).prox(v, step))(POINT)
    np.testing.assert_allclose(rows[0, :, 0], alone, atol=1e-14)


@pytest.mark.parametrize("step", STEPS)
def test_the_jacobian_at_a_tie_is_that_of_a_neighbour(step, x64) -> None:
    def prox(v: Any) -> jax.Array:
        return jaxreg.Simplex().prox(v, step)

    at_tie = jax.jacobian(prox)(POINT)
    # Zeros raised in proportion to their steps are above the level.
    near = jax.jacobian(prox)(POINT + 1e-6 * step * (POINT == 0))
    np.testing.assert_allclose(at_tie, near, atol=1e-12)


@pytest.mark.parametrize("step", STEPS)
def test_the_radius_of_an_l1_ball_is_the_sum_at_a_tie(step, x64) -> None:
    leaf = np.array([1.0, -1.0, 0.5, -0.5])
    level = 0.5 / np.broadcast_to(step, 4)[2:].max()
    shrunk = np.maximum(abs(leaf) - level * np.broadcast_to(step, 4), 0)
    radius = shrunk.sum()
    slope = jax.jacfwd(lambda r: jaxreg.L1Ball(r).prox(leaf, step))(radius)
    np.testing.assert_allclose((slope * np.sign(leaf)).sum(), 1, rtol=1e-12)


def test_entries_at_the_level_stay_exactly_zero() -> None:
    out = jaxreg.Simplex().prox(jnp.asarray(POINT, jnp.float32), 1.0)
    np.testing.assert_array_equal(out, np.float32(POINT))
