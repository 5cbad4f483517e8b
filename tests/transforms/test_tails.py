"""Transformations that come last in a chain: shrink, project, and held zeros."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from tests.support.training import answers, train, updated


def test_shrink_with_l2_is_the_decay_of_adamw_in_prox_form() -> None:
    x, grads = jnp.array([2.0, -3.0]), jnp.array([0.1, 5.0])
    rate, decay = 0.01, 0.3
    moved = updated(optax.adam(rate), x, grads)
    tail = jaxreg.shrink(jaxreg.L2(decay / 2), rate)
    found = updated(optax.chain(optax.adam(rate), tail), x, grads)
    np.testing.assert_allclose(found, moved / (1 + rate * decay), rtol=1e-6)
    adamw = updated(optax.adamw(rate, weight_decay=decay), x, grads)
    # The two forms agree to first order in rate * decay.
    np.testing.assert_allclose(found, adamw, rtol=2 * (rate * decay))


def test_shrink_after_sgd_minimises_loss_plus_penalty() -> None:
    centre = jnp.array([1.0, 0.2, -0.6])
    tx = optax.chain(optax.sgd(0.1), jaxreg.shrink(jaxreg.L1(0.5), 0.1))
    found, _ = train(tx, lambda x: x - centre, jnp.zeros(3), 500)
    np.testing.assert_allclose(found, [0.5, 0.0, -0.1], atol=1e-6)


def test_shrink_after_adam_keeps_what_has_a_steady_gradient() -> None:
    """`|mean g| > strength rms(g)` survives, whatever the size of the gradient."""
    noise = jnp.array([0.1, 10.0, 0.1, 10.0])
    pull = jnp.array([0.05, 5.0, 0.005, 0.5])
    tx = optax.chain(optax.adam(1e-3), jaxreg.shrink(jaxreg.L1(0.2), 1e-3))
    signs = jax.random.rademacher(jax.random.key(0), (20_000, 4), jnp.float32)
    # A loss with the gradient -pull wherever x is, and noise about it.
    path = answers(tx, -pull + noise * signs, jnp.zeros(4))
    means = path[10_000:].mean(axis=0)
    # Signal to noise 0.45 in the first two, 0.05 in the others; the strength is 0.2.
    assert np.all(means[:2] > 1.0) and np.all(np.abs(means[2:]) < 0.05)


def test_cautious_shrink_spares_weights_that_move_away_from_zero() -> None:
    x = jnp.array([1.0, 1.0, -1.0, -1.0, 1.0])
    grads = jnp.array([1.0, -1.0, 1.0, -1.0, 0.0])
    tail = jaxreg.shrink(jaxreg.L1(1.0), 0.25, cautious=True)
    found = updated(optax.chain(optax.sgd(0.25), tail), x, grads)
    np.testing.assert_array_equal(found, [0.5, 1.25, -1.25, -0.5, 0.75])


def test_every_step_of_project_is_feasible() -> None:
    ball = jaxreg.L2Ball(1.0, group_axis=0)
    tx = optax.chain(optax.adam(0.3), jaxreg.project(ball))
    grads = jax.random.normal(jax.random.key(0), (20, 3, 4))
    for x in answers(tx, grads, 3 * jnp.ones((3, 4)))[1:]:
        assert ball.violation(jnp.asarray(x)) <= 1e-6


def test_project_raises_on_penalties_that_are_no_constraint() -> None:
    tx, x = jaxreg.project(jaxreg.L1(1.0)), jnp.ones(2)
    with pytest.raises(TypeError, match=r"allowed are constraints"):
        tx.update(x, tx.init(x), x)


OPTIMIZERS = {
    "momentum": lambda: optax.sgd(0.05, momentum=0.9),
    "adamw": lambda: optax.adamw(0.05, weight_decay=0.1),
    "adam": lambda: optax.adam(0.05),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_held_zeros_stay_and_the_rest_is_refitted_without_bias(name: str) -> None:
    centre = jnp.array([2.0, -1.0, 3.0])
    start = jnp.array([1.5, 0.0, 2.5])
    tx = optax.chain(OPTIMIZERS[name](), jaxreg.hold_support(jaxreg.L1(0.5)))
    found, _ = train(tx, lambda x: x - centre, start, 3000)
    assert found[1] == 0
    bias = 0.3 if name == "adamw" else 1e-4
    np.testing.assert_allclose(found[::2], centre[::2], atol=bias)


@pytest.mark.parametrize("axis", [0, jaxreg.Blocks((1, 2))])
def test_held_groups_are_those_of_the_penalty(axis: Any) -> None:
    x = jnp.array([[0.0, 0.0], [1.0, 2.0]])
    tx = jaxreg.hold_support(jaxreg.GroupLasso(1.0, group_axis=axis))
    found = updated(tx, x, jnp.ones((2, 2)))
    np.testing.assert_array_equal(found, [[0.0, 0.0], [2.0, 3.0]])


def test_a_zero_inside_a_group_that_lives_may_move() -> None:
    x = jnp.array([[0.0, 1.0]])
    tx = jaxreg.hold_support(jaxreg.GroupLasso(1.0, group_axis=0))
    np.testing.assert_array_equal(updated(tx, x, jnp.ones((1, 2))), [[1.0, 2.0]])


def test_the_orthant_step_stops_at_zero_and_zeros_stay() -> None:
    x = jnp.array([1.5, 0.5, 0.0, -0.5, -1.5])
    found = updated(jaxreg.orthant(jaxreg.L1(1.0)), x, jnp.ones(5))
    np.testing.assert_array_equal(found, [2.5, 1.5, 0.0, 0.0, -0.5])


def test_orthant_after_a_proximal_phase_reaches_the_lasso() -> None:
    centre, strength = jnp.array([1.0, 0.2, -0.6]), 0.5
    start = jnp.array([0.3, 0.0, -0.3])

    def grad(x: Any) -> Any:
        return x - centre + strength * jnp.sign(x)

    tx = optax.chain(optax.sgd(0.1), jaxreg.orthant(jaxreg.L1(strength)))
    found, _ = train(tx, grad, start, 500)
    np.testing.assert_allclose(found, [0.5, 0.0, -0.1], atol=1e-6)


@pytest.mark.parametrize(
    ("margin", "kept"), [(0.0, [True, True, False]), (0.6, [True, False, False])]
)
def test_a_group_that_turns_by_more_than_the_margin_is_zeroed(margin, kept) -> None:
    x = jnp.ones((3, 2))
    moves = jnp.array([[-0.1, -0.1], [-0.4, -0.6], [-1.5, -0.8]])
    rows = jaxreg.GroupLasso(1.0, group_axis=0)
    found = updated(jaxreg.half_space(rows, margin), x, moves)
    expected = jnp.where(jnp.array(kept)[:, None], x + moves, 0.0)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("lift", [jaxreg.scaled, jaxreg.weighted])
def test_half_space_takes_the_groups_of_a_lifted_penalty(lift) -> None:
    x, moves = jnp.ones((3, 2)), jnp.array([[-0.1, -0.1], [-0.4, -0.6], [-1.5, -0.8]])
    rows = jaxreg.GroupLasso(1.0, group_axis=0)
    found = updated(jaxreg.half_space(lift(rows, 2.0)), x, moves)
    np.testing.assert_array_equal(found, updated(jaxreg.half_space(rows), x, moves))


def test_half_space_of_blocks_and_of_a_penalty_without_groups() -> None:
    x = jnp.array([[1.0, 1.0, 1.0, 1.0]])
    moves = jnp.array([[-3.0, 0.0, 1.0, 0.0]])
    blocks = jaxreg.GroupLasso(1.0, group_axis=jaxreg.Blocks((1, 2)))
    found = updated(jaxreg.half_space(blocks), x, moves)
    np.testing.assert_array_equal(found, [[0.0, 0.0, 2.0, 1.0]])
    tx = jaxreg.half_space(jaxreg.L1(1.0))
    with pytest.raises(TypeError, match=r"use jaxreg\.orthant"):
        tx.update(moves, tx.init(x), x)


@pytest.mark.parametrize(
    "tail",
    [jaxreg.orthant(jaxreg.L1(1.0)), jaxreg.half_space(jaxreg.GroupLasso(1.0, 0))],
)
def test_a_nan_gradient_is_seen_and_does_not_pass_for_a_zero(tail: Any) -> None:
    x, grads = jnp.ones((3, 2)).at[2].set(0.0), jnp.full((3, 2), 0.1)
    nan = grads.at[0, 1].set(jnp.nan).at[2, 1].set(jnp.nan)
    found = updated(optax.chain(optax.sgd(1.0), tail), x, nan)
    # What is held at zero stays so, whatever its gradient.
    np.testing.assert_allclose(found, [[0.9, jnp.nan], [0.9, 0.9], [0, 0]], rtol=1e-6)


def test_a_missing_gradient_leaves_its_leaf_out() -> None:
    params = {"trained": jnp.array([2.0]), "frozen": jnp.array([2.0])}
    grads = {"trained": jnp.array([1.0]), "frozen": None}
    tx = jaxreg.shrink(jaxreg.L1(1.0), 0.5)
    updates, _ = tx.update(grads, tx.init(params), params)
    assert updates["frozen"] is None and updates["trained"] == 0.5
