"""Weights that were loaded or edited between two steps."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from tests.support.training import make_step

PENALTIES = {
    "L1": jaxreg.L1(0.3),
    "GroupLasso, axis 0": jaxreg.GroupLasso(0.3, group_axis=0),
    "GroupLasso, axis 1": jaxreg.GroupLasso(0.3, group_axis=1),
}
every_penalty = pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)

SHAPES = {"first": (40, 3), "second": (3, 40), "third": (6, 6)}


def make_params(seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=s), "f4") for name, s in SHAPES.items()}


def grads_of(params: Any) -> Any:
    """Constant gradients, most of them too weak to revive a zero: below 0.3."""
    return jax.tree.map(lambda leaf: 0.2 * leaf, make_params(seed=7))


def trained(penalty: Any) -> Any:
    """A transform's step, params and state after some steps, with zeros inside."""
    tx = jaxreg.regularize(optax.sgd(1e-2), penalty)
    step = make_step(tx, grads_of)
    # Exact zeros, whose latents wander: a row and a column of every leaf.
    params = jax.tree.map(lambda x: x.at[0].set(0.0).at[:, 0].set(0.0), make_params())
    state = tx.init(params)
    for _ in range(3):
        params, state = step(params, state)
    return tx, step, params, state


def assert_equal(left: Any, right: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, left, right)


def assert_close(left: Any, right: Any) -> None:
    # The force of one step is still that of the old latent: 1e-2 times 0.3 |x| / rms.
    close = functools.partial(np.testing.assert_allclose, rtol=1e-6, atol=2.5e-2)
    jax.tree.map(close, left, right)


@every_penalty
@pytest.mark.parametrize("changed", SHAPES)
def test_loaded_weights_restart_exactly_their_leaf(penalty: Any, changed: str) -> None:
    tx, step, params, state = trained(penalty)
    undisturbed_params, undisturbed = step(params, state)
    loaded = {**params, changed: make_params(seed=1)[changed]}
    new_params, new_state = step(loaded, state)
    fresh_params, fresh = step(loaded, tx.init(loaded))
    assert_close(new_state.latent[changed], fresh.latent[changed])
    assert_close(new_params[changed], fresh_params[changed])
    for name in SHAPES.keys() - {changed}:
        assert_equal(new_state.latent[name], undisturbed.latent[name])
        assert_equal(new_params[name], undisturbed_params[name])
        # The test would prove nothing if a fresh latent were the old one.
        assert np.abs(fresh.latent[name] - undisturbed.latent[name]).max() > 1e-3


@every_penalty
def test_weights_loaded_over_a_model_of_zeros_are_trained(penalty: Any) -> None:
    tx = jaxreg.regularize(optax.sgd(1e-2), penalty)
    step = make_step(tx, grads_of)
    zeros = jax.tree.map(jnp.zeros_like, make_params())
    params, state = step(zeros, tx.init(zeros))
    loaded = make_params()
    params, _ = step(loaded, state)
    assert_close(params, step(loaded, tx.init(loaded))[0])


def test_loaded_zeros_stay_where_gradients_are_weak() -> None:
    _, step, params, state = trained(jaxreg.L1(0.3))
    zeros = jax.tree.map(jnp.zeros_like, params)
    # The latents go to the edge of the dead zone; beyond it the strength pulls back.
    after = step(zeros, state)[0]
    for name, grad in grads_of(None).items():
        is_weak = np.abs(np.asarray(grad)) < 0.3
        assert is_weak.any()
        assert (np.asarray(after[name])[is_weak] == 0).all()


@every_penalty
def test_an_edit_within_the_rounding_of_the_params_is_none(penalty: Any) -> None:
    _, step, params, state = trained(penalty)
    _, undisturbed = step(params, state)
    unit = 2 * jnp.finfo(jnp.float32).eps
    tiny = jax.tree.map(lambda leaf: leaf * (1 + unit), params)
    _, edited = step(tiny, state)
    assert_equal(edited.latent, undisturbed.latent)


@every_penalty
def test_training_itself_is_never_taken_for_an_edit(penalty: Any) -> None:
    _, step, params, state = trained(penalty)
    # In the dead zone the force is z strength / width = 6 z, so a latent there takes
    # steps that are known; a restart would throw it back to 0.
    for _ in range(10):
        before = state.latent
        is_dead = jax.tree.map(lambda leaf: leaf == 0, params)
        params, state = step(params, state)
        for name, grad in grads_of(None).items():
            dead = np.asarray(is_dead[name])
            assert dead.any()
            expected = before[name] - 1e-2 * (grad + 6.0 * before[name])
            # Fused and separate sums of numbers up to 0.2.
            np.testing.assert_allclose(
                state.latent[name][dead], expected[dead], rtol=0, atol=1e-7
            )


def test_a_long_step_is_not_taken_for_an_edit() -> None:
    tx = jaxreg.regularize(optax.sgd(1.0), jaxreg.L1(1e-3), width=0.05)
    update = jax.jit(tx.update)
    for start in jnp.linspace(0.2, 40.0, 50):
        # The first weight jumps over up to 800 widths, the second stays dead.
        params = jnp.array([start, 0.0])
        state = tx.init(params)
        updates, state = update(jnp.array([start - 0.01, 0.02]), state, params)
        params = optax.apply_updates(params, updates)
        assert params[1] == 0
        before = state.latent[1]
        _, state = update(jnp.zeros(2), state, params)
        # Only the force moves it: by strength / width = 1/50 of itself.
        np.testing.assert_allclose(state.latent[1], before * (1 - 1 / 50), rtol=1e-5)


@pytest.mark.parametrize("penalty", [jaxreg.L1(0.3), jaxreg.GroupLasso(0.3, 0)])
def test_one_edited_row_is_seen_in_a_small_leaf(penalty: Any) -> None:
    _, step, params, state = trained(penalty)
    edited = {**params, "first": params["first"].at[1].set(2.0)}
    went_on, _ = step(edited, state)
    # One step of 1e-2 times the gradient and the force: less than 0.05.
    np.testing.assert_allclose(went_on["first"][1], 2.0, rtol=0, atol=0.05)


EDITED = {
    "L1": jaxreg.L1(0.3),
    "MCP": jaxreg.MCP(0.3, 1.0),
    "GroupLasso": jaxreg.GroupLasso(0.3, group_axis=0),
    "Box": jaxreg.Box(-0.5, 0.5),
}
EDITS = {
    "times .98": lambda w: w * 0.98,
    "times .999": lambda w: w * 0.999,
    "loaded anew": lambda w: -w[::-1],
    "one to zero": lambda w: w.at[1, 1].set(0.0),
    "one from zero": lambda w: w.at[0, 1].set(0.4),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize(
    "shape",
    [(10, 10), (64, 32), pytest.param((1000, 1000), marks=pytest.mark.slow)],
    ids=str,
)
@pytest.mark.parametrize("name", EDITED)
def test_every_edit_is_kept_at_learning_rate_zero(
    name: str, shape: tuple[int, int], dtype: Any, edit: str
) -> None:
    tx = jaxreg.regularize(optax.sgd(lambda count: 1e-2 * (count < 5)), EDITED[name])
    w = np.random.default_rng(0).normal(size=shape) * 0.3
    w[0] = 0.0
    w = jnp.clip(jnp.asarray(w, jnp.float32), -0.5, 0.5).astype(dtype)
    grads = jnp.asarray(np.random.default_rng(1).normal(size=shape), dtype)
    update, state = jax.jit(tx.update), tx.init(w)
    for _ in range(5):
        updates, state = update(grads, state, w)
        w = optax.apply_updates(w, updates)
    edited = EDITS[edit](w).astype(dtype)
    updates, state = update(grads, state, edited)
    after = optax.apply_updates(edited, updates)
    # Rounding of float32 at |w| + width: of the prox, its inverse and the update.
    exact = np.asarray(edited, np.float64)
    slack = 8 * np.finfo(np.float32).eps * (np.abs(exact) + 0.05)
    off = np.abs(np.asarray(after, np.float64) - exact)
    # A latent at a tie between two numbers of half precision may round to either.
    is_tie = off <= float(jnp.finfo(dtype).eps) * np.abs(exact)
    assert (is_tie | (off <= slack)).all(), off.max()
    assert (off > slack).mean() <= 1e-5


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    "penalty",
    [jaxreg.TotalVariation(0.1, axis=0), jaxreg.NuclearNorm(0.1)],
    ids=["TotalVariation", "NuclearNorm"],
)
@pytest.mark.slow
def test_an_edit_of_coupled_entries_is_kept_to_rounding(
    penalty: Any, dtype: Any
) -> None:
    tx = jaxreg.regularize(optax.sgd(0.0), penalty)
    w = jnp.asarray(np.random.default_rng(0).normal(size=(20, 10)), dtype)
    updates, state = tx.update(jnp.zeros_like(w), tx.init(w), w)
    w = optax.apply_updates(w, updates)
    for edited in (w * 0.98, w.at[1, 1].set(0.4), w[::-1]):
        edited = edited.astype(dtype)
        updates, _ = tx.update(jnp.zeros_like(w), state, edited)
        # A unit of bfloat16 at the largest entry, or the rounding of an SVD in float32.
        unit = float(jnp.finfo(dtype).eps) if dtype != jnp.float32 else 4e-6
        slack = unit * float(jnp.max(jnp.abs(edited)))
        assert (jnp.abs(updates) <= slack).all()


def test_weights_loaded_over_strided_dead_groups_are_kept() -> None:
    # The left column of 8x8 images is dead: rows 0, 8, ..., 56 of the first kernel.
    is_dead = (jnp.arange(64) % 8 == 0)[:, None]
    current = jnp.where(is_dead, 0.0, jnp.ones((64, 300)))
    loaded = jnp.where(is_dead, 0.0, 3 * jnp.ones((64, 300)))
    tx = jaxreg.regularize(optax.sgd(1e-2), jaxreg.GroupLasso(0.3, group_axis=0))
    updates, _ = tx.update(jnp.zeros((64, 300)), tx.init(current), loaded)
    # A step of 1e-2 times the force of 0.3.
    expected = jnp.where(is_dead, 0.0, -3e-3 * jnp.ones((64, 300)))
    np.testing.assert_allclose(updates, expected, atol=1e-5)


def test_a_frozen_leaf_with_dead_groups_resumes_unchanged() -> None:
    params = jnp.ones((80, 4)) * (jnp.arange(80) % 10 > 0)[:, None]
    tx = jaxreg.regularize(optax.sgd(0.1), jaxreg.GroupLasso(0.01, group_axis=0))
    state = tx.init(params)
    for _ in range(10):
        # Outside, freeze throws these updates away.
        _, state = tx.update(params, state, params)
    released, _ = tx.update(jnp.zeros_like(params), state, params)
    # The gradient is 0: only the force of 0.01 moves it.
    assert float(jnp.max(jnp.abs(released))) <= 0.0011


def test_an_edit_beside_zeros_leaves_their_latents_alone() -> None:
    _, step, params, state = trained(jaxreg.L1(0.3))
    edited = {**params, "first": params["first"].at[3, 1].add(1.0)}
    went_on, after = step(edited, state)
    kept, undisturbed = step(params, state)
    dead = np.asarray(params["first"]) == 0
    np.testing.assert_array_equal(
        np.asarray(after.latent["first"])[dead],
        np.asarray(undisturbed.latent["first"])[dead],
    )
    assert abs(went_on["first"][3, 1] - kept["first"][3, 1]) > 0.9


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_small_edit_beside_a_large_one_is_kept(dtype: Any) -> None:
    tx = jaxreg.regularize(optax.sgd(1e-2), jaxreg.L1(0.3))
    params, nothing = jnp.ones(4, dtype), jnp.zeros(4, dtype)
    # 1.5 % is two units of bfloat16.
    edited = params.at[0].set(2.0).at[1].set(1.015625)
    _, state = tx.update(nothing, tx.init(params), edited)
    # Of each latent the force of 0.3 takes 3e-3, beyond a dead zone of 0.05.
    wanted = edited.astype(jnp.float32) + 0.05 - 3e-3
    np.testing.assert_allclose(state.latent, wanted, atol=1e-6)


def test_a_strength_that_moves_the_dead_zone_still_revives_zeros() -> None:
    # The dead zone of an elastic net depends on l1 / l2, and here l1 falls tenfold.
    target = jnp.array([2.0, 0.5, -0.05, 0.3])
    fall = optax.linear_schedule(1.0, 0.1, 2000)
    tx = optax.inject_hyperparams(
        lambda l1: jaxreg.regularize(optax.adam(1e-2), jaxreg.ElasticNet(l1, 0.5))
    )(l1=fall)

    def step(carry, _):
        w, state = carry
        updates, state = tx.update(w - target, state, w)
        return (optax.apply_updates(w, updates), state), None

    (w, _), _ = jax.lax.scan(step, (jnp.zeros(4), tx.init(jnp.zeros(4))), length=4000)
    # soft(target, 0.1) / 2; a constant learning rate leaves Adam's last digits.
    np.testing.assert_allclose(w, [0.95, 0.2, 0.0, 0.1], atol=1e-3)
    assert w[2] == 0


@every_penalty
def test_a_nan_latent_restarts_from_repaired_params(penalty: Any) -> None:
    tx = jaxreg.regularize(optax.sgd(1e-2), penalty)
    step, params = make_step(tx, grads_of), make_params()
    state = tx.init(params)
    nan = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), state.latent)
    repaired, _ = step(params, state._replace(latent=nan))
    assert_close(repaired, step(params, state)[0])


@every_penalty
def test_nan_params_with_a_good_latent_do_not_come_back_silently(penalty: Any) -> None:
    tx = jaxreg.regularize(optax.sgd(1e-2), penalty)
    step, params = make_step(tx, grads_of), make_params()
    nan = {**params, "third": jnp.full_like(params["third"], jnp.nan)}
    last, _ = step(nan, tx.init(params))
    assert np.isnan(last["third"]).all()
    assert np.isfinite(last["first"]).all()


@pytest.mark.parametrize(
    "penalty",
    [jaxreg.LInf(0.02, group_axis=0), jaxreg.TotalVariation(0.05, axis=0)],
    ids=["LInf", "TotalVariation"],
)
@pytest.mark.slow
def test_training_in_bfloat16_is_no_edit_of_coupled_entries(penalty: Any) -> None:
    """Updates of bfloat16 are inexact where an entry crosses 0: off by a unit."""
    tx = jaxreg.regularize(optax.adam(5e-3), penalty)
    goal = jnp.asarray(np.random.default_rng(0).normal(size=(24, 24)) * 0.1)
    w = jnp.zeros_like(goal, jnp.bfloat16)
    update, state, step = jax.jit(tx.update), tx.init(w), penalty.step_for(0.05)
    for noise in np.random.default_rng(1).normal(size=(100, 24, 24)) * 0.3:
        updates, state = update((w - goal + noise).astype(w.dtype), state, w)
        w = optax.apply_updates(w, updates)
        nearest = penalty.nearest_latent(state.latent, w, step)
        # Only the inexact entries move, by about a unit at the largest entry.
        unit = float(jnp.finfo(w.dtype).eps) * float(jnp.max(jnp.abs(w)))
        np.testing.assert_allclose(nearest, state.latent, rtol=0, atol=unit)
