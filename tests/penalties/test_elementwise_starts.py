"""Elementwise penalties: fresh latents, steps for a width, refusals, eager calls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg
from tests.system.test_eager import compilations

pytestmark = pytest.mark.slow

PROX = jax.jit(lambda penalty, v, step: penalty.prox(v, step))
START = jax.jit(lambda penalty, v, step: penalty.nearest_latent(v, v, step))
GRID = (-1.0, -0.25, 0.0, 0.5, 2.0)


JUMPS = [
    jaxreg.L0(0.3),
    jaxreg.Lp(0.3, 0.5),
    jaxreg.Lp(0.3, 0.1),
    jaxreg.Lp(0.3, 0.8),
    jaxreg.CappedL1(0.3, 0.5),
    jaxreg.CappedL1(0.3, 0.03),
    jaxreg.CappedL1(0.3, 0.01),
]
CONTINUOUS = [
    jaxreg.MCP(0.3, 0.5),
    jaxreg.SCAD(0.3, 0.5),
    jaxreg.LogSum(0.3, 0.2),
    jaxreg.TransformedL1(0.3, 0.6),
]
sizes = np.geomspace(1e-30, 1e3, 3001)
WEIGHTS = np.float32(np.concatenate([[0.0], sizes, -sizes]))


@pytest.mark.parametrize("penalty", JUMPS + CONTINUOUS, ids=repr)
def test_a_fresh_latent_zeroes_no_weight(penalty) -> None:
    step = penalty.step_for(0.05)
    latent = START(penalty, WEIGHTS, step)
    x = np.asarray(penalty.prox(latent, step))
    assert x[0] == 0.0 and np.isfinite(latent).all()
    if penalty in JUMPS:
        # Of capped L1 the sum with the width rounds the smallest away, as that of L1.
        far = 1e-7 if isinstance(penalty, jaxreg.CappedL1) else 0.0
        kept = abs(WEIGHTS) > far
        assert np.array_equal(np.sign(x[kept]), np.sign(WEIGHTS[kept]))
        assert abs(np.asarray(latent) - WEIGHTS).max() < 0.2
    # What the prox can return starts as it is, up to rounding beside the width.
    outputs = np.unique(
        abs(np.asarray(PROX(penalty, np.geomspace(1e-9, 9, 9999), step)))
    )
    smallest = outputs[outputs > 0].min()
    gap = np.diff(outputs).argmax() if isinstance(penalty, jaxreg.CappedL1) else 0
    in_gap = (abs(WEIGHTS) > outputs[gap] * 0.99) & (
        abs(WEIGHTS) < 1.01 * outputs[gap + 1]
    )
    is_reached = (abs(WEIGHTS) > 1.01 * smallest) & ~in_gap
    slack = 2e-6 * (abs(WEIGHTS) + 0.05)
    assert is_reached.sum() > 300
    assert (abs(x - WEIGHTS) <= slack)[is_reached].all()


@pytest.mark.parametrize("penalty", JUMPS, ids=repr)
def test_a_weight_in_the_gap_starts_at_the_nearest_end(penalty, x64) -> None:
    step = penalty.step_for(0.05)
    weights = np.linspace(1e-3, 0.7, 700)
    x = np.asarray(penalty.prox(START(penalty, weights, step), step))
    outputs = np.asarray(PROX(penalty, np.linspace(0, 1.5, 300_001), step))
    nonzero = outputs[outputs > 0]
    nearest = abs(weights[:, None] - nonzero).min(1)
    # The spacing of the outputs above; beside 0, the end away from it is as good.
    far = np.where(weights < 0.06, 0.06, 1e-4)
    assert (abs(x - weights) <= nearest + far).all()


@pytest.mark.parametrize("strength", [0.3, 20.0])
def test_a_weight_off_the_grid_starts_at_the_nearest_grid_value(
    strength: float,
) -> None:
    penalty = jaxreg.PiecewiseAffine.to_grid(strength, (-1.0, 0.0, 0.6))
    weights = np.linspace(-1.5, 1.0, 1001, dtype=np.float32)
    step = penalty.step_for(0.1)
    latent = penalty.nearest_latent(weights, weights, step)
    x = np.asarray(penalty.prox(latent, step))
    outputs = np.asarray(PROX(penalty, np.linspace(-2, 2, 400_001), step))
    nearest = abs(weights[:, None] - np.unique(outputs)).min(1)
    # The spacing of the outputs.
    assert (abs(x - weights) <= nearest + 1e-5).all()


@pytest.mark.parametrize(
    "penalty", [jaxreg.L0(0.3), jaxreg.Lp(0.3, 0.5), jaxreg.Lp(0.3, 0.5)], ids=repr
)
def test_jump_penalties_are_stationary_at_zero(
    penalty,
) -> None:
    zero, grads = jnp.zeros(3), jnp.array([0.0, -1.0, 1e6])
    assert not np.any(penalty.stationarity(zero, grads))
    assert not np.any(penalty.subgradient(zero))
    off = jax.tree.map(lambda number: 0.0, penalty)
    np.testing.assert_array_equal(off.stationarity(zero, grads), abs(grads))


def test_a_step_beyond_two_knots_of_capped_l1_zeroes_the_width() -> None:
    penalty = jaxreg.CappedL1(0.3, 0.01)
    step = penalty.step_for(0.05)
    assert penalty.prox(jnp.array(0.0495), step) == 0.0
    assert penalty.prox(jnp.array(0.0505), step) == jnp.float32(0.0505)


@pytest.mark.parametrize(
    ("penalty", "bound"),
    [
        (jaxreg.MCP(0.3, 0.02), 0.02 / 0.3),
        (jaxreg.SCAD(0.3, 0.02, 2.0), 0.01 / 0.3),
        (jaxreg.LogSum(0.3, 0.02), 0.02**2 / 0.3),
        (jaxreg.TransformedL1(0.3, 0.02), 0.02**2 / (2 * 1.02 * 0.3)),
    ],
    ids=repr,
)
def test_the_step_stays_at_half_the_bound_of_convexity(penalty, bound) -> None:
    # A few roundings of float32.
    np.testing.assert_allclose(penalty.step_for(10.0), bound / 2, rtol=1e-6)


def test_the_step_of_a_grid_is_at_most_half_its_shortest_piece() -> None:
    penalty = jaxreg.PiecewiseAffine.to_grid(0.5, GRID)
    # The pieces about 0 are 0.125 long; one quotient in float32.
    np.testing.assert_allclose(penalty.step_for(0.05), 0.1, rtol=2e-7)
    np.testing.assert_allclose(penalty.step_for(10.0), 0.125, rtol=2e-7)


def test_huber_has_the_step_that_halves_or_moves_by_the_width() -> None:
    # One quotient in float32.
    np.testing.assert_allclose(jaxreg.Huber(0.5, 1.0).step_for(0.05), 2.0, rtol=2e-7)
    np.testing.assert_allclose(jaxreg.Huber(0.5, 0.01).step_for(0.05), 10.0, rtol=2e-7)


@pytest.mark.parametrize("power", [0, 1, 1.5, -0.5, "0.5", None, np.nan])
def test_a_power_outside_zero_and_one_raises(power) -> None:
    with pytest.raises(ValueError, match="allowed: a number between 0 and 1"):
        jaxreg.Lp(1.0, power)


@pytest.mark.parametrize("ratio", [1, 1.0, 0.5, -3.7])
def test_a_ratio_of_one_or_less_raises(ratio) -> None:
    with pytest.raises(ValueError, match="allowed: a finite number > 1"):
        jaxreg.SCAD(1.0, 2.0, ratio)


@pytest.mark.parametrize(
    "make",
    [
        lambda: jaxreg.PiecewiseAffine(1.0, (1.0, 0.0), (-1.0, 0.0, 1.0)),
        lambda: jaxreg.PiecewiseAffine(1.0, (), (0.0,)),
        lambda: jaxreg.PiecewiseAffine(1.0, (0.0, np.inf), (-1.0, 0.0, 1.0)),
        lambda: jaxreg.PiecewiseAffine(1.0, (0.0, 1.0), (-1.0, 1.0)),
        lambda: jaxreg.PiecewiseAffine(1.0, [0.0], [-1.0, 1.0]),
        lambda: jaxreg.PiecewiseAffine(1.0, (0.0,), (1.0, 2.0)),
        lambda: jaxreg.PiecewiseAffine.to_grid(1.0, (0.0, 0.0)),
        lambda: jaxreg.PiecewiseAffine.convex(1.0, (0.5, 1.0)),
        lambda: jaxreg.PiecewiseAffine.convex(1.0, (0.0,)),
    ],
)
def test_knots_that_make_no_penalty_raise(make) -> None:
    with pytest.raises(ValueError, match=r"PiecewiseAffine.*; allowed: "):
        make()


def test_every_grid_value_has_height_zero_and_holds_what_is_near() -> None:
    grid = tuple(np.linspace(-1, 1, 16))
    penalty = jaxreg.PiecewiseAffine.to_grid(1.0, grid)
    values = jnp.array(grid, jnp.float32)
    assert float(penalty.value(values)) < 1e-6
    near = values + jnp.linspace(-0.02, 0.02, 16)
    # A value of the grid and its rounding to float32.
    np.testing.assert_allclose(penalty.prox(near, 0.021), values, atol=1e-7)


@pytest.mark.parametrize(
    "penalty",
    [jaxreg.Lp(0.3, 0.4), jaxreg.PiecewiseAffine.to_grid(0.3, GRID)],
    ids=repr,
)
def test_an_eager_prox_and_start_compile_nothing_the_second_time(
    penalty, caplog
) -> None:
    v = jnp.linspace(-1.0, 1.0, 7)

    def call() -> None:
        x = penalty.prox(v, jnp.abs(v))
        penalty.nearest_latent(x, x, 0.1)
        penalty.stationarity(v, v)

    assert not compilations(caplog, call)
