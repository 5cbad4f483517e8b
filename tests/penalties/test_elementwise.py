"""Elementwise penalties against brute force, skglm and limits; defects of peers."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg
from tests.laws.rows import elementwise as textbook

PROX = jax.jit(lambda penalty, v, step: penalty.prox(v, step))
GRID = (-1.0, -0.25, 0.0, 0.5, 2.0)


# Each with its textbook value, about and beyond the bounds of convexity.
CASES = [
    (jaxreg.Huber(1.0, 0.5), lambda x: textbook.huber(abs(x), 1.0, 0.5)),
    (jaxreg.Huber(3.0, 20.0), lambda x: textbook.huber(abs(x), 3.0, 20.0)),
    (jaxreg.MCP(1.0, 1.5), lambda x: textbook.mcp(abs(x), 1.0, 1.5)),
    (jaxreg.MCP(0.1, 0.01), lambda x: textbook.mcp(abs(x), 0.1, 0.01)),
    (jaxreg.SCAD(1.0, 3.7), lambda x: textbook.scad(abs(x), 1.0, 3.7, 3.7)),
    (jaxreg.SCAD(0.5, 1.0, 2.1), lambda x: textbook.scad(abs(x), 0.5, 1.0, 2.1)),
    (jaxreg.SCAD(0.5, 1.0, 1.01), lambda x: textbook.scad(abs(x), 0.5, 1.0, 1.01)),
    (jaxreg.LogSum(1.0, 1.0), lambda x: textbook.log_sum(abs(x), 1.0, 1.0)),
    (jaxreg.LogSum(0.5, 0.01), lambda x: textbook.log_sum(abs(x), 0.5, 0.01)),
    (jaxreg.Lp(1.0, 0.5), lambda x: textbook.power(abs(x), 1.0, 0.5)),
    (jaxreg.Lp(1.0, 0.01), lambda x: textbook.power(abs(x), 1.0, 0.01)),
    (jaxreg.Lp(1.0, 2 / 3), lambda x: textbook.power(abs(x), 1.0, 2 / 3)),
    (jaxreg.Lp(0.5, 0.99), lambda x: textbook.power(abs(x), 0.5, 0.99)),
    (jaxreg.L0(0.5), lambda x: textbook.count(abs(x), 0.5)),
    (jaxreg.TransformedL1(1.0, 1.0), lambda x: textbook.transformed_l1(abs(x), 1, 1)),
    (
        jaxreg.TransformedL1(0.5, 0.02),
        lambda x: textbook.transformed_l1(abs(x), 0.5, 0.02),
    ),
    (jaxreg.CappedL1(1.0, 0.7), lambda x: textbook.capped_l1(abs(x), 1.0, 0.7)),
    (
        jaxreg.PiecewiseAffine.to_grid(1.0, GRID),
        lambda x: textbook.to_grid(x, 1.0, GRID),
    ),
    (
        jaxreg.PiecewiseAffine.convex(0.5, GRID),
        lambda x: textbook.chords(x, 0.5, GRID),
    ),
    (
        jaxreg.PiecewiseAffine(1.0, (-1.0, 0.0, 1.0, 2.0), (-1.0, 2.0, 0.5, -3.0, 4.0)),
        lambda x: np.interp(
            x, [-9, -1, 0, 1, 2, 9], [8 + 0.5, 0.5, 2.5, 3, 0, 28], np.nan, np.nan
        ),
    ),
]


def case_id(item: object) -> str | None:
    return repr(item)[:60] if isinstance(item, jaxreg.Penalty) else None


cases = pytest.mark.parametrize(("penalty", "value"), CASES, ids=case_id)


@cases
@pytest.mark.slow
def test_the_prox_is_the_global_minimiser_at_every_step(penalty, value, x64) -> None:
    grid = np.concatenate([np.linspace(-6, 6, 120_001), np.geomspace(1e-9, 1, 2000)])
    v = np.linspace(-5.3, 5.3, 42)
    for step in np.geomspace(1e-3, 1e3, 13):
        x = np.asarray(PROX(penalty, v, step))
        found = value(x) + (x - v) ** 2 / (2 * step)
        near = (grid - v[:, None]) ** 2 / (2 * step)
        floor = (value(grid) + near).min(1)
        # Rounding of float64: the grid cannot be lower than the minimum.
        assert (found <= floor + 1e-12 * (1 + abs(floor))).all(), step


@cases
@pytest.mark.slow
def test_float32_has_no_more_error_than_ten_units(penalty, value) -> None:
    del value
    generator = np.random.default_rng(0)
    size = 10.0 ** generator.uniform(-4, 4, 4000)
    v = np.float32(size * generator.choice([-1, 1], 4000))
    steps = np.float32(10.0 ** generator.uniform(-4, 4, 4000))
    narrow = np.asarray(PROX(penalty, v, steps), float)
    with jax.enable_x64(True):
        wide = np.asarray(PROX(penalty, np.float64(v), np.float64(steps)))
        # Where 1e-6 of a change of v moves the answer by far more, so does rounding.
        bent = np.asarray(PROX(penalty, np.float64(v) * (1 + 1e-6), np.float64(steps)))
        less = np.asarray(PROX(penalty, np.float64(v), np.float64(steps) * (1 + 1e-6)))
    moved = np.maximum(abs(bent - wide), abs(less - wide))
    is_plain = moved <= 1e-5 * abs(v)
    assert is_plain.mean() > 0.9
    error = abs(narrow - wide)[is_plain]
    assert (error <= 10 * np.finfo(np.float32).eps * abs(v)[is_plain]).all()


def as_array(prox, v: np.ndarray, *numbers: float) -> np.ndarray:
    return np.array([prox(float(entry), *numbers) for entry in v])


@pytest.mark.slow
@pytest.mark.parametrize("step", [0.01, 0.3, 1.0, 1.4])
def test_skglm_has_the_same_prox_where_its_own_is_right(step: float, x64) -> None:
    peer = importlib.import_module("skglm.utils.prox_funcs")
    v = np.linspace(-4.03, 4.01, 61)
    pairs = [
        (jaxreg.MCP(0.8, 0.8 * 2.0), as_array(peer.prox_MCP, v, step, 0.8, 2.0)),
        (
            jaxreg.SCAD(0.8, 0.8 * 3.7, ratio=3.7),
            as_array(peer.prox_SCAD, v, step, 0.8, 3.7),
        ),
        (jaxreg.Lp(0.8, 0.5), as_array(peer.prox_05, v, 0.8 * step)),
        (jaxreg.LogSum(0.8, 1.2), as_array(peer.prox_log_sum, v, 0.8 * step, 1.2)),
        (jaxreg.Lp(0.8, 2 / 3), as_array(peer.prox_2_3, v, 0.8 * step)),
    ]
    for penalty, expected in pairs:
        # Its cube roots cancel.
        np.testing.assert_allclose(PROX(penalty, v, step), expected, atol=1e-9)


def test_skglm_prox_mcp_zeroes_too_much_for_steps_above_gamma() -> None:
    # It gives 0 with an objective of 0.9025, against 0.75.
    assert jaxreg.MCP(1.0, knot=1.5).prox(jnp.array(1.9), 2.0) == jnp.float32(1.9)


def test_skglm_prox_log_sum_zeroes_too_much_by_rounding(x64) -> None:
    # At alpha 0.8 and eps 0.5 its bisection starts at the root of a negative number,
    # and every weight up to alpha / eps = 1.6 becomes 0; the better root is 0.92.
    x = float(jaxreg.LogSum(0.8, 0.5).prox(jnp.array(1.484), 1.0))
    np.testing.assert_allclose(x + 0.8 / (0.5 + x), 1.484, rtol=1e-14)
    assert 0.8 * np.log1p(x / 0.5) + (1.484 - x) ** 2 / 2 < 0.91 * 1.484**2 / 2


@pytest.mark.parametrize("v", [1.0, 2.7, 3.69, 3.7, 3.71, 5.0])
def test_skglm_prox_scad_divides_by_zero_at_gamma_minus_one(v, x64) -> None:
    out = float(jaxreg.SCAD(1.0, 3.7, ratio=3.7).prox(jnp.array(v), 2.7))
    expected = v if v > 3.7 else max(v - 2.7, 0.0)
    # One subtraction in float64.
    np.testing.assert_allclose(out, expected, rtol=1e-15, atol=1e-15)


def test_pyproximal_scad_is_wrong_for_tau_above_a_minus_one(x64) -> None:
    penalty = jaxreg.SCAD(1.0, 2.1, ratio=2.1)
    v, grid = np.linspace(-4, 4, 60), np.linspace(-5, 5, 200_001)
    x = np.asarray(PROX(penalty, v, 2.0))

    def cost(point: np.ndarray) -> np.ndarray:
        return textbook.scad(abs(point), 1.0, 2.1, 2.1) * 2 + (point - where) ** 2 / 2

    where = v
    found = cost(x)
    where = v[:, None]
    # Rounding of float64.
    assert (found <= cost(grid[None]).min(1) + 1e-14).all()


def test_pyproximal_log1_is_off_by_a_factor(x64) -> None:
    penalty, v = jaxreg.LogSum(0.7, 0.3), np.linspace(-3, 3, 60)
    x = np.asarray(PROX(penalty, v, 0.9))
    kept = x[x != 0]
    assert 20 < kept.size < 60
    # Stationarity of the textbook formula, in float64.
    slope = 0.7 / (0.3 + abs(kept)) * np.sign(kept)
    np.testing.assert_allclose(kept + 0.9 * slope, v[x != 0], rtol=1e-14)


def test_proxssi_group_mcp_keeps_a_group_where_zero_is_better() -> None:
    # x = (2.1, 0), lr / d = 10, lambda 1, gamma 2 of the norm: 0.2205 at 0, not 1.
    root = 2**0.5
    penalty = jaxreg.grouped(jaxreg.MCP(1 / root, 2 / root), group_axis=0)
    x = jnp.array([[2.1, 0.0]])
    np.testing.assert_allclose(penalty.value(x), 1.0, rtol=1e-6)
    assert np.array_equal(penalty.prox(x, 10.0), np.zeros((1, 2)))
    assert np.array_equal(penalty.prox(x, 2.0), x)


LIMITS = {
    "MCP": (jaxreg.MCP(0.3, 1e9), jaxreg.L1(0.3)),
    "SCAD": (jaxreg.SCAD(0.3, 1e9), jaxreg.L1(0.3)),
    "SCAD of a large ratio": (jaxreg.SCAD(0.3, 1.5, 1e9), jaxreg.MCP(0.3, 1.5)),
    "SCAD of ratio near 1": (
        jaxreg.SCAD(0.3, 1.5, 1 + 1e-9),
        jaxreg.CappedL1(0.3, 1.5),
    ),
    "Lp": (jaxreg.Lp(0.3, 1 - 1e-9), jaxreg.L1(0.3)),
    # By the closed form of one half, and by the general one.
    "Lp of one half": (jaxreg.Lp(0.3, 0.5), jaxreg.Lp(0.3, 0.5 + 1e-12)),
    "LogSum": (jaxreg.LogSum(0.3e9, 1e9), jaxreg.L1(0.3)),
    "TransformedL1": (jaxreg.TransformedL1(0.3, 1e9), jaxreg.L1(0.3)),
    "CappedL1": (jaxreg.CappedL1(0.3, 1e9), jaxreg.L1(0.3)),
    "Huber": (jaxreg.Huber(0.3, 1e9), jaxreg.L2(0.15)),
    "a fine grid": (
        jaxreg.PiecewiseAffine.convex(0.3, np.linspace(-4, 4, 201)),
        jaxreg.L2(0.15),
    ),
    "one knot": (
        jaxreg.PiecewiseAffine(0.3, (0.0,), (-1.0, 1.0)),
        jaxreg.L1(0.3),
    ),
}


SLOW = {"a fine grid"}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name in LIMITS
    ],
)
def test_a_limit_is_the_simpler_penalty(name: str, x64) -> None:
    penalty, limit = LIMITS[name]
    v = np.linspace(-3.01, 3.07, 51)
    # The limits are off by 1e-9 of the weights, the grid by its half spacing.
    slack = 2.1e-2 if name == "a fine grid" else 1e-7
    for step in (0.1, 1.0, 3.0):
        expected = PROX(limit, v, step)
        np.testing.assert_allclose(PROX(penalty, v, step), expected, atol=slack)
    np.testing.assert_allclose(penalty.subgradient(v), limit.subgradient(v), atol=slack)
    np.testing.assert_allclose(penalty.value(v), limit.value(v), atol=50 * slack)


@pytest.mark.parametrize("penalty", [penalty for penalty, _ in CASES], ids=case_id)
def test_the_gradient_of_prox_by_its_numbers_is_right(penalty, x64) -> None:
    v = np.array([-2.3, -0.8, 0.45, 1.6, 4.2])

    def total(numbers):
        return jnp.sum(penalty_of(numbers).prox(v, 0.3) * np.arange(1, 6))

    leaves, treedef = jax.tree.flatten(penalty)
    penalty_of = functools.partial(jax.tree.unflatten, treedef)
    numbers = [jnp.asarray(number, float) for number in leaves]
    slopes = jax.jit(jax.grad(total))(numbers)
    for place, slope in enumerate(slopes):
        ahead, behind = (
            total([n + h * (i == place) for i, n in enumerate(numbers)])
            for h in (1e-6, -1e-6)
        )
        # Central differences: 1e-12 of curvature and 1e-10 of rounding.
        np.testing.assert_allclose(slope, (ahead - behind) / 2e-6, atol=1e-6)


@pytest.mark.parametrize("penalty", [penalty for penalty, _ in CASES], ids=case_id)
def test_derivatives_at_strength_and_step_zero_are_finite(penalty) -> None:
    v = jnp.array([0.0, 1e-30, 0.3, -2.0, 1e30])

    def total(factor, step):
        return jnp.sum(jnp.tanh(scaled(penalty, factor).prox(v, step)))

    def scaled(one, factor):
        leaves, treedef = jax.tree.flatten(one)
        return treedef.unflatten([leaves[0] * factor, *leaves[1:]])

    for pair in [(0.0, 1.0), (1.0, 0.0), (0.0, 0.0)]:
        for slope in jax.jit(jax.grad(total, (0, 1)))(*pair):
            assert np.isfinite(slope)
