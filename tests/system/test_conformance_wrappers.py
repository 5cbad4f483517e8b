"""`regularize` and `add_penalty_gradient` in Optax's wrappers, jit, vmap, donation."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from tests.support.training import make_step, train
from tests.support.trees import assert_equal

PENALTIES = {
    "L1": jaxreg.L1(0.25),
    "GroupLasso": jaxreg.GroupLasso(0.25, group_axis=0),
}
every_penalty = pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)


def make_params(dtype: Any = jnp.float32) -> Any:
    values = np.random.default_rng(0).normal(size=(12, 3))
    kernel = jnp.asarray(values, dtype)
    return {"kernel": kernel, "other": {"kernel": kernel.T, "table": kernel[:4]}}


def grads_of(params: Any) -> Any:
    """The gradients of half the squared distance to 1/2."""
    return jax.tree.map(lambda leaf: leaf - 0.5, params)


def assert_close(left: Any, right: Any) -> None:
    # Two programs for one formula: XLA may fuse a product and a sum in one of them.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 3e-6, 3e-7), left, right)


def regularized(strength: Any) -> Any:
    return jaxreg.regularize(optax.adam(1e-2), jaxreg.L1(strength))


def pulled(strength: Any) -> Any:
    first = jaxreg.add_penalty_gradient(jaxreg.L1(strength))
    return optax.chain(first, optax.adam(1e-2))


both = pytest.mark.parametrize("build", [regularized, pulled])


@both
def test_an_injected_strength_gives_the_plain_run(build: Any) -> None:
    injected = optax.inject_hyperparams(build)(strength=1e-4)
    params, state = train(injected, grads_of, make_params(), 5)
    assert_close(params, train(build(1e-4), grads_of, make_params(), 5)[0])
    assert optax.tree.get(state, "strength") == np.float32(1e-4)


@both
def test_an_injected_strength_can_change_in_flight(build: Any) -> None:
    injected = optax.inject_hyperparams(build)(strength=1e-4)
    params, state = train(injected, grads_of, make_params(), 3)
    inner = state.inner_state
    state.hyperparams["strength"] = jnp.asarray(0.5)
    changed, _ = train(injected, grads_of, params, 3, state)
    expected, _ = train(build(0.5), grads_of, params, 3, inner)
    assert_close(changed, expected)
    kept, _ = train(build(1e-4), grads_of, params, 3, inner)
    assert np.abs(changed["kernel"] - kept["kernel"]).max() > 1e-3


@both
def test_all_strengths_as_a_jit_argument_compile_once(build: Any) -> None:
    traces = []

    @jax.jit
    def first_step(strength: Any, params: Any) -> Any:
        traces.append(1)
        tx = build(strength)
        return tx.update(grads_of(params), tx.init(params), params)[0]

    outs = [first_step(s, make_params())["kernel"] for s in (0.0, 1e-3, 0.5)]
    assert len(traces) == 1
    assert np.isfinite(outs).all()


def test_a_penalty_as_a_jit_argument_compiles_once() -> None:
    traces = []

    @jax.jit
    def first_step(penalty: Any, params: Any) -> Any:
        traces.append(1)
        tx = jaxreg.regularize(optax.sgd(0.1), penalty)
        return tx.update(grads_of(params), tx.init(params), params)[0]

    for strength in (0.0, 1e-3, 0.5):
        first_step(jaxreg.on_kernels(jaxreg.L1(strength)), make_params())
    assert len(traces) == 1


def fixed_pair() -> Any:
    """Params, target and latent at a lasso solution, exact in binary arithmetic."""
    target = jnp.array([2.0, -1.0, 0.125, -0.0625, 0.0])
    params = jnp.array([1.75, -0.75, 0.0, 0.0, 0.0])
    # L1(0.25) with width 0.0625 has prox step 0.25.
    return params, target, params - 0.25 * (params - target)


@pytest.mark.parametrize("place", ["outside", "inside"])
def test_multisteps_leaves_the_fixed_point_exactly_alone(place: str) -> None:
    params, target, latent = fixed_pair()
    penalty = jaxreg.L1(0.25)
    if place == "outside":
        tx = optax.MultiSteps(jaxreg.regularize(optax.adam(0.1), penalty, 0.0625), 3)
        state = tx.init(params)
        normal = state.inner_opt_state._replace(latent=latent)
        state = state._replace(inner_opt_state=normal)
    else:
        inner = optax.MultiSteps(optax.adam(0.1), 3).gradient_transformation()
        tx = jaxreg.regularize(inner, penalty, 0.0625)
        state = tx.init(params)._replace(latent=latent)

    moved, state = train(tx, lambda x: x - target, params, 7, state)
    np.testing.assert_array_equal(moved, params)
    np.testing.assert_array_equal(jaxreg.latent(state)[0], latent)


@every_penalty
def test_multisteps_outside_is_one_step_with_the_mean_gradient(penalty: Any) -> None:
    tx = jaxreg.regularize(optax.adam(1e-2), penalty)
    params = make_params()
    several = optax.MultiSteps(tx, every_k_schedule=2)
    update, state = jax.jit(several.update), several.init(params)
    zeros, state = update(jax.tree.map(lambda x: 0.5 * x, params), state, params)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(zeros))
    updates, state = update(jax.tree.map(lambda x: 1.5 * x, params), state, params)
    assert_close(updates, tx.update(params, tx.init(params), params)[0])


@pytest.mark.parametrize(
    "dtype", [jnp.float32, pytest.param(jnp.bfloat16, marks=pytest.mark.slow)]
)
@every_penalty
def test_apply_if_finite_skips_a_nan_step_and_goes_on(penalty: Any, dtype: Any) -> None:
    tx = optax.apply_if_finite(jaxreg.regularize(optax.adam(1e-2), penalty), 3)
    params, state = train(tx, grads_of, make_params(dtype), 2)
    nan = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), params)
    updates, skipped = jax.jit(tx.update)(nan, state, params)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(updates))
    assert_equal(skipped.inner_state, state.inner_state)
    after, _ = train(tx, grads_of, params, 2, skipped)
    assert_equal(after, train(tx, grads_of, params, 2, state)[0])


@every_penalty
def test_a_nan_gradient_ends_in_the_params_until_a_new_init(
    penalty: Any,
) -> None:
    tx = jaxreg.regularize(optax.adam(1e-2), penalty)
    params = make_params()
    nan = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), params)
    updates, _ = jax.jit(tx.update)(nan, tx.init(params), params)
    broken = optax.apply_updates(params, updates)
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(broken))
    repaired, _ = train(tx, grads_of, params, 3, tx.init(params))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(repaired))


@every_penalty
def test_donated_params_and_state_train_without_a_warning(penalty: Any) -> None:
    tx = jaxreg.regularize(optax.adam(1e-2), penalty)
    kept, _ = train(tx, grads_of, make_params(), 3)
    donating = jax.jit(make_step(tx, grads_of), donate_argnums=(0, 1))
    params = make_params()
    state = tx.init(params)
    for _ in range(3):
        donated = params
        params, state = donating(params, state)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(donated))
    assert_close(params, kept)


STRENGTHS = (0.0, 1e-3, 0.3)


@pytest.mark.slow
@pytest.mark.parametrize("axis", [None, 0])
def test_a_vmapped_grid_of_strengths_gives_the_separate_runs(axis: int | None) -> None:
    def run(strength: Any) -> Any:
        one = jaxreg.L1 if axis is None else lambda s: jaxreg.GroupLasso(s, axis)
        tx = jaxreg.regularize(optax.adam(1e-2), one(strength))
        return scanned(tx)

    grid = jax.vmap(run)(jnp.array(STRENGTHS))
    for place, strength in enumerate(STRENGTHS):
        one = jax.tree.map(lambda leaf, place=place: leaf[place], grid)
        assert_close(one, run(strength))
    # Both programs end in float32 and take adam's steps of 1e-2, 20 times: a few
    # units in the last place of weights near 1 are all that may differ.
    assert_close(jax.tree.map(lambda leaf: leaf[0], grid), scanned(optax.adam(1e-2)))


def scanned(tx: Any) -> Any:
    return train(tx, grads_of, make_params(), 20)[0]
