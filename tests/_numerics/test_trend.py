"""Trend filtering: its iteration does not see polynomials or other lines."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxreg._numerics.trend import solve

LINES = np.cumsum(np.random.default_rng(0).normal(size=(2, 25)), axis=1)
TIMES = np.arange(25)


def solved(lines, order, threshold=1.0):
    column = jnp.full((len(lines), 1), threshold, lines.dtype)
    solution, _, rounds = solve(jnp.asarray(lines), column, order)
    return np.asarray(solution), int(rounds)


@pytest.mark.parametrize("order", [1, 3])
def test_a_polynomial_is_added_to_the_trend_at_no_cost(order: int, x64) -> None:
    added = 580 + 30 * TIMES - (TIMES - 12.0) ** order
    plain, rounds = solved(LINES, order)
    moved, more = solved(LINES + added, order)
    # Rounding of numbers of 3000 in float64; the limit is met a round later, if at all.
    np.testing.assert_allclose(moved - added, plain, atol=1e-9)
    assert abs(more - rounds) <= 2


def test_a_level_costs_no_digits_beyond_its_own_rounding() -> None:
    # The level is exact in float32 beside them.
    lines = np.round(LINES * 64).astype("f4") / 64
    plain, rounds = solved(lines, 1)
    moved, more = solved(lines + 512, 1)
    # Half a unit of 512, and the limit of the iteration.
    np.testing.assert_allclose(moved - 512, plain, atol=1e-4)
    assert abs(more - rounds) <= 2


def test_a_huge_line_does_not_change_the_others() -> None:
    lines = LINES.astype("f4")
    huge = lines.copy()
    huge[1, 7] = 1e6
    np.testing.assert_array_equal(solved(huge, 1)[0][0], solved(lines, 1)[0][0])


def test_lines_of_zeros_and_polynomials_come_back() -> None:
    lines = np.stack([0 * TIMES, 5 + 2 * TIMES, np.full(25, 1e6)]).astype("f4")
    found, rounds = solved(lines, 1)
    # A unit at the largest entry: the polynomial is taken out and added back.
    slack = 1.2e-7 * abs(lines).max(axis=1, keepdims=True)
    assert np.all(abs(found - lines) <= slack)
    assert rounds < 100
    with jax.debug_nans(True):
        solved(0 * lines, 1)
