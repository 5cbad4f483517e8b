"""Total variation and trends along lines against other solvers and their conditions."""

import dataclasses
import itertools

import jax
import numpy as np
import pytest
from scipy.optimize import lsq_linear

import jaxreg
from tests.penalties.test_order import signals

pytestmark = pytest.mark.slow

PROX = jax.jit(lambda penalty, v, step: penalty.prox(v, step))


def stray(v: np.ndarray, x: np.ndarray, threshold: np.ndarray) -> float:
    """The distance of `x` from the optimality conditions of total variation.

    The sums of `(x - v) / threshold` lie in [-1, 1], end at 0, and are the sign of the
    jump wherever x jumps.
    """
    dual = np.cumsum((np.asarray(x, float) - v) / threshold)
    jumps = np.sign(np.diff(x))
    at_jumps = abs(dual[:-1] - jumps)[jumps != 0]
    outside = abs(dual[:-1]) - 1
    return max(outside.max(initial=0), at_jumps.max(initial=0), abs(dual[-1]))


@pytest.mark.parametrize("kind", ["noise", "walk", "ties", "plateaus", "zeros"])
@pytest.mark.parametrize("decades", [0, 8])
def test_total_variation_meets_its_optimality_conditions(kind, decades, x64) -> None:
    generator = np.random.default_rng(1)
    for size, strength in itertools.product((1, 2, 1000, 100_000), (0.3, 30.0)):
        v = signals(size)[kind]
        half = decades / 2
        steps = (
            10.0 ** generator.uniform(-half, half, size) if decades else np.ones(size)
        )
        x = PROX(jaxreg.TotalVariation(strength, axis=0), v, steps)
        # An answer rounded to float64, by the largest weight, summed over the line.
        largest = abs(v).max() / (strength * steps.min())
        assert stray(v, x, strength * steps) <= 1e-15 * size**0.5 * (10 + 10 * largest)


@pytest.mark.parametrize("kind", ["noise", "walk", "ties"])
def test_total_variation_in_float32_is_that_in_float64(kind: str) -> None:
    v = signals(100_000)[kind].astype(np.float32)
    for strength in (0.3, 30.0):
        penalty = jaxreg.TotalVariation(np.float32(strength), axis=0)
        found = PROX(penalty, v, 1.0)
        with jax.enable_x64(True):
            exact = PROX(penalty, v.astype(float), 1.0)
        # Four roundings of the largest entry.
        assert np.max(abs(found - np.asarray(exact))) <= 5e-7 * abs(v).max()


@pytest.mark.parametrize("decades", [0, 2])
def test_total_variation_is_the_dual_solution_of_scipy(decades: float, x64) -> None:
    generator = np.random.default_rng(2)
    for size in (2, 5, 30):
        v = generator.normal(size=size)
        threshold = 10.0 ** generator.uniform(-decades / 2, decades / 2, size)
        rows = np.diff(np.eye(size), axis=0) * np.sqrt(threshold)
        goal = v / np.sqrt(threshold)
        dual = lsq_linear(rows.T, goal, (-1, 1), "bvls", tol=1e-16).x
        expected = v - np.sqrt(threshold) * (rows.T @ dual)
        step = threshold if decades else threshold[0]
        if not decades:
            np.testing.assert_allclose(threshold, 1)
        found = PROX(jaxreg.TotalVariation(1.0, axis=0), v, step)
        # The active set method ends in one least squares problem of float64.
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_flat_segments_are_equal_and_fixed_entries_fixed(x64) -> None:
    v = signals(2000)["walk"]
    steps = 10.0 ** np.random.default_rng(0).uniform(-4, 4, v.size)
    steps[::97] = 0.0
    x = np.asarray(PROX(jaxreg.TotalVariation(1.0, axis=0), v, steps))
    np.testing.assert_array_equal(x[::97], v[::97])
    gaps = abs(np.diff(x))
    assert np.sum(gaps == 0) > 500
    # No gap is a rounding of 0: the smallest true gaps of 2000 entries are larger.
    assert np.min(gaps[gaps > 0]) > 1e-12


def test_fixed_entries_leave_the_others_optimal_between_them() -> None:
    """Weights of 1e30 would erase the others from sums that run past them."""
    v = np.array([0.0, 5.0, -3.0, 1.0, 9.0, 2.0, 2.5, 0.0], np.float32)
    steps = np.array([1.0, 1e4, 1e4, 0.0, 1.0, 1.0, 0.0, 1.0], np.float32)
    found = PROX(jaxreg.TotalVariation(1.0, axis=0), v, steps)
    # Pairs around the fixed 1 and 2.5, by hand.
    np.testing.assert_allclose(found, [1, 1, 1, 1, 7, 2.5, 2.5, 1.0], rtol=1e-6)


@pytest.mark.parametrize("axis", [1, -1])
def test_lines_along_other_axes_equal_separate_calls(axis: int, x64) -> None:
    v = np.random.default_rng(0).normal(size=(3, 6, 6))
    for penalty in (
        jaxreg.TotalVariation(0.4, axis),
        jaxreg.FusedLasso(0.1, 0.4, axis),
        jaxreg.TrendFilter(0.4, 1, axis),
    ):
        alone = dataclasses.replace(penalty, axis=0)
        found = np.moveaxis(PROX(penalty, v, 1.0), axis, 0)
        lines = np.moveaxis(v, axis, 0)
        for place in np.ndindex(lines.shape[1:]):
            expected = PROX(alone, lines[:, *place], 1.0)
            # Trend filtering stops when its moves are below 1e-12.
            np.testing.assert_allclose(found[:, *place], expected, atol=1e-9)


def test_the_fused_prox_soft_thresholds_total_variation(x64) -> None:
    v = signals(200)["walk"]
    flat = PROX(jaxreg.TotalVariation(0.4, axis=0), v, 0.7)
    expected = PROX(jaxreg.L1(0.3), flat, 0.7)
    found = PROX(jaxreg.FusedLasso(0.3, 0.4, axis=0), v, 0.7)
    np.testing.assert_array_equal(found, expected)


def test_the_fused_prox_raises_on_steps_along_its_axis_alone(x64) -> None:
    penalty = jaxreg.FusedLasso(1.0, 1.0, axis=0)
    # Soft threshold after total variation has objective 1.817 here, the best is 1.05.
    with pytest.raises(ValueError, match="varies among entries"):
        penalty.prox(np.array([1.0, 1.1]), np.array([1.0, 0.1]))
    v, steps = np.ones((3, 2)) * [2.0, 5.0], np.array([[0.5, 2.0]])
    np.testing.assert_allclose(penalty.prox(v, steps)[0], [1.5, 3.0])


def test_l1_plus_total_variation_is_the_fused_lasso() -> None:
    lasso, lines = jaxreg.L1(0.3), jaxreg.TotalVariation(0.4, axis=0)
    fused = jaxreg.FusedLasso(0.3, 0.4, axis=0)
    assert lasso + lines == lines + lasso == fused
    assert (fused + lasso).l1 == 0.6
    assert (lines + fused).total_variation == 0.8
    assert (fused + fused).total_variation == 0.8
    assert (lines + lines).strength == 0.8


def test_the_sum_of_total_variations_along_two_axes_raises() -> None:
    rows, columns = (jaxreg.TotalVariation(0.4, axis) for axis in (0, 1))
    for one in (rows, jaxreg.FusedLasso(0.1, 0.4, axis=0)):
        with pytest.raises(
            TypeError, match=r"along two axes have one strength.*axis=\(0, 1\)"
        ):
            one + columns


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("strength", [0.01, 1.0, 10.0])
def test_the_trend_is_the_dual_solution_of_scipy(order, strength, x64) -> None:
    for size in (order + 1, 30):
        v = signals(size)["walk"]
        rows = np.diff(np.eye(size), n=order + 1, axis=0)
        expected = v
        if len(rows):
            bounds = (-strength, strength)
            dual = lsq_linear(rows.T, v, bounds, "bvls", tol=1e-16, max_iter=10_000).x
            expected = v - rows.T @ dual
        penalty = jaxreg.TrendFilter(strength, order, axis=0)
        # The prox stops at moves of 1e-12; its error is a multiple of that.
        np.testing.assert_allclose(PROX(penalty, v, 1.0), expected, atol=1e-9)
        with jax.enable_x64(False):
            narrow = PROX(penalty, v.astype(np.float32), 1.0)
        slack = penalty.facts.prox_tolerance * abs(v).max()
        np.testing.assert_allclose(narrow, expected, atol=slack)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_strong_trend_is_the_polynomial_fit(order: int, x64) -> None:
    v, places = signals(30)["noise"], np.arange(30)
    fit = np.polynomial.Polynomial.fit(places, v, order)(places)
    found = PROX(jaxreg.TrendFilter(1e6, order, axis=0), v, 1.0)
    np.testing.assert_allclose(found, fit, atol=1e-9)


def test_a_trend_of_order_zero_raises_naming_total_variation() -> None:
    with pytest.raises(ValueError, match=r"Order 0 is jaxreg\.TotalVariation"):
        jaxreg.TrendFilter(1.0, order=0, axis=0)


@pytest.mark.parametrize("axis", [None, 1.0, True, (0,)])
def test_an_axis_that_is_no_int_raises(axis) -> None:
    for make in (
        lambda axis: jaxreg.TotalVariation(0.4, axis),
        lambda axis: jaxreg.FusedLasso(0.1, 0.4, axis),
        lambda axis: jaxreg.TrendFilter(0.4, 1, axis),
    ):
        with pytest.raises(TypeError, match="allowed: an int, one axis"):
            make(axis)


def test_leaves_without_the_axis_raise() -> None:
    for penalty in (jaxreg.TotalVariation(0.4, 1), jaxreg.TrendFilter(0.4, 1, 1)):
        assert "has no axis" in penalty.layout.refusal(())
        assert "has axes 0 to 0, and axis is 1" in penalty.layout.refusal((4,))
        assert penalty.layout.refusal((4, 3)) is None
