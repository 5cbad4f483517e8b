"""The normal map: its start, its fixed points, and the inner optimizer's inputs."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.linear_model import Lasso

import jaxreg
from tests.support.training import history, train

WIDTH = 0.05

PENALTIES = {
    "L1": jaxreg.L1(0.3),
    "ElasticNet": jaxreg.ElasticNet(0.3, 0.2),
    "L2": jaxreg.L2(0.2),
    "GroupLasso": jaxreg.GroupLasso(0.3, group_axis=0),
}


def record_gradients() -> optax.GradientTransformation:
    """Gradient descent with rate 0.1 whose state is the last gradient it was given."""

    def update(updates: Any, state: Any, params: Any = None) -> Any:
        del state, params
        return jax.tree.map(lambda g: -0.1 * g, updates), updates

    return optax.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params), update
    )


@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_the_prox_of_the_first_latent_is_the_params(penalty: Any, dtype: str) -> None:
    with jax.enable_x64(True):
        weights = np.random.default_rng(0).normal(size=(40, 6))
        # Sizes over nine decades, and rows of exact zeros.
        scale = 10.0 ** np.arange(-6, 4).repeat(4)[:, None]
        params = jnp.asarray(weights * scale, dtype).at[::5].set(0.0)
        state = jaxreg.regularize(optax.sgd(0.1), penalty, WIDTH).init(params)
        wide = jnp.promote_types(dtype, jnp.float32)
        assert state.latent.dtype == wide
        prox = penalty.prox(state.latent, penalty.step_for(WIDTH))
        start = np.abs(np.asarray(params, wide))
        error = np.abs(np.asarray(prox) - np.asarray(params, wide))
        # One rounding to store the latent, |w| + width, and a few in the prox; for
        # groups of n entries the width of one entry is at most sqrt(n) of it.
        bound = 3 * jnp.finfo(wide).eps * (start + np.sqrt(6) * WIDTH)
        assert np.all(error <= bound)
        np.testing.assert_array_equal(prox[::5], 0.0)


def test_latents_start_on_their_own_side_of_the_dead_zone() -> None:
    tx = jaxreg.regularize(optax.sgd(0.1), jaxreg.L1(7.0), width=0.5)
    latent = tx.init(jnp.array([1.0, -1.0, 0.0])).latent
    np.testing.assert_array_equal(latent, [1.5, -1.5, 0.0])


INNER = {
    "sgd": lambda: optax.sgd(0.1),
    "momentum": lambda: optax.sgd(0.1, momentum=0.9),
    "adam": lambda: optax.adam(0.1),
    "rmsprop": lambda: optax.rmsprop(0.1),
    # Its default decay would act on the latent: see what no transform can see.
    "lion": lambda: optax.lion(0.1, weight_decay=0.0),
    "adagrad": lambda: optax.adagrad(0.1),
    "clip, adam": lambda: optax.chain(optax.clip_by_global_norm(0.1), optax.adam(0.1)),
}


@pytest.mark.parametrize("inner", INNER)
def test_a_solution_of_the_lasso_is_an_exact_fixed_point(inner: str) -> None:
    with jax.enable_x64(True):
        # Numbers with short binary fractions, so that the sum of the two gradients
        # is exactly 0 at the solution and not a rounding error that lion would take
        # for a gradient: any move at all is a defect.
        bend = jnp.array([1.0, 4.0, 0.5, 1.0, 2.0, 1.0])
        target = jnp.array([2.0, -1.0, 4.0, 0.125, -0.0625, 0.25])
        penalty, width = jaxreg.L1(0.25), 0.0625
        params = jnp.array([1.75, -0.9375, 3.5, 0.0, 0.0, 0.0])
        latent = params - penalty.step_for(width) * bend * (params - target)
        tx = jaxreg.regularize(INNER[inner](), penalty, width)
        last, state = stay(tx, lambda x: bend * (x - target), params, latent)
        np.testing.assert_array_equal(last, params)
        np.testing.assert_array_equal(state.latent, latent)


@pytest.mark.parametrize("inner", ["adam", "lion"])
def test_a_solution_of_the_group_lasso_is_an_exact_fixed_point(inner: str) -> None:
    with jax.enable_x64(True):
        target = jnp.array([[3.0, -3.0, 3.0, 3.0], [0.5, 0.5, -0.5, 0.5]])
        penalty, width = jaxreg.GroupLasso(1.0, group_axis=0), 2.0
        params = jnp.array([[2.0, -2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
        latent = params - penalty.step_for(width) * (params - target)
        tx = jaxreg.regularize(INNER[inner](), penalty, width)
        last, state = stay(tx, lambda x: x - target, params, latent)
        np.testing.assert_array_equal(last, params)
        np.testing.assert_array_equal(state.latent, latent)


def stay(tx: Any, grads_of: Callable[[Any], Any], params: Any, latent: Any) -> Any:
    return train(tx, grads_of, params, 2000, tx.init(params)._replace(latent=latent))


def test_adam_finds_the_support_of_scikit_learn_exactly() -> None:
    rng = np.random.default_rng(0)
    data = rng.normal(size=(80, 20))
    truth = np.where(np.arange(20) < 6, 1.0 + np.arange(20) / 5, 0.0)
    answers = data @ truth + 0.1 * rng.normal(size=80)
    reference = Lasso(alpha=0.1, fit_intercept=False, tol=1e-12).fit(data, answers)
    with jax.enable_x64(True):

        def grads_of(weights: Any) -> Any:
            return data.T @ (data @ weights - answers) / len(data)

        rate = optax.cosine_decay_schedule(3e-2, 3000)
        tx = jaxreg.regularize(optax.adam(rate), jaxreg.L1(0.1))
        weights, _ = train(tx, grads_of, jnp.asarray(rng.normal(size=20)), 3000)
        weights = np.asarray(weights)
    np.testing.assert_array_equal(weights != 0, reference.coef_ != 0)
    assert 0 < np.sum(weights != 0) < 20
    # scikit-learn stops at a duality gap of 1e-12 of |y|^2: 1e-6 in the weights.
    np.testing.assert_allclose(weights, reference.coef_, rtol=0, atol=1e-6)


def test_bfloat16_weights_reach_zero_where_shrinkage_stalls() -> None:
    # A move of 2 ** -11 per step is an eighth of a unit of bfloat16 below 1.
    rate, steps = 2.0**-11, 2200
    params = jnp.ones((4, 4), jnp.bfloat16)
    naive = params
    for _ in range(3):
        naive = jaxreg.L1(1.0).prox(naive, rate)
    np.testing.assert_array_equal(naive, params)

    tx = jaxreg.regularize(optax.sgd(rate), jaxreg.L1(1.0))
    last, _ = train(tx, jnp.zeros_like, params, steps)
    assert last.dtype == jnp.bfloat16
    np.testing.assert_array_equal(last, 0.0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_zeros_of_the_prox_are_zeros_of_half_precision_params(dtype: str) -> None:
    target = np.random.default_rng(0).normal(size=(40, 8))
    penalty = jaxreg.L1(0.5)
    tx = jaxreg.regularize(optax.adam(1e-2), penalty)
    start = jnp.asarray(target + 1.0, dtype)
    params, state = train(tx, lambda x: x - jnp.asarray(target, dtype), start, 400)
    prox = penalty.prox(state.latent, penalty.step_for(WIDTH))
    np.testing.assert_array_equal(params == 0, prox == 0)
    expected = np.sign(target) * np.maximum(np.abs(target) - 0.5, 0)
    # The gradients and the weights have an error of eps times numbers up to 3; where
    # |target| is that near 0.5 a zero may be none.
    slack = 4 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(np.asarray(params, float), expected, atol=2 * slack)
    clear = np.abs(target) < 0.5 - 2 * slack
    np.testing.assert_array_equal(np.asarray(params)[clear], 0.0)


def test_the_force_is_the_latents_not_that_of_rounded_params() -> None:
    params = jnp.linspace(0.5, 3.0, 64).astype(jnp.bfloat16)
    tx = jaxreg.regularize(record_gradients(), jaxreg.L1(1e-3))
    _, state = train(tx, jnp.zeros_like, params, 100)
    # z - prox(z) is the width to within eps * 3, so the force is the strength to
    # 60 eps of float32. With the params, rounded to 1/128, it would be off by 10 %.
    force = state.inner_optimizer
    np.testing.assert_allclose(force, 1e-3, rtol=120 * np.finfo(np.float32).eps)


def test_the_inner_optimizer_is_given_the_latent_as_its_params() -> None:
    inner = optax.chain(optax.add_decayed_weights(1.0), record_gradients())
    tx = jaxreg.regularize(inner, jaxreg.L1(0.25), width=0.5)
    params = jnp.array([1.0, -2.0, 0.0])
    _, state = tx.update(jnp.zeros(3), tx.init(params), params)
    # The force 0.25 sign(z) plus z = (1.5, -2.5, 0).
    np.testing.assert_array_equal(state.inner_optimizer[1], [1.75, -2.75, 0.0])


def test_free_leaves_get_the_plain_optimizer() -> None:
    params = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}
    target = {"kernel": jnp.zeros((3, 2)), "bias": jnp.array([3.0, -1.0])}
    tx = jaxreg.regularize(optax.adam(1e-2), jaxreg.on_kernels(jaxreg.L1(0.1)))

    def grads_of(tree: Any) -> Any:
        return jax.tree.map(jnp.subtract, tree, target)

    last, state = train(tx, grads_of, params, 20)
    plain, _ = train(optax.adam(1e-2), grads_of, params, 20)
    # One formula in two programs, which XLA may fuse differently.
    np.testing.assert_allclose(last["bias"], plain["bias"], rtol=1e-6)
    assert isinstance(state.latent["bias"], optax.MaskedNode)


def test_a_schedule_of_zero_is_the_plain_optimizer_on_the_latent() -> None:
    def schedule(count: Any) -> Any:
        return jnp.where(count < 5, 0.0, 1.0)

    grads = jnp.array([1.0, -0.3, 0.02])
    tx = jaxreg.regularize(optax.adam(1e-2), jaxreg.L1(2.0), schedule=schedule)
    plain = optax.adam(1e-2)
    start = jnp.array([1.0, -1.0, 0.0])
    _, state = train(tx, lambda x: grads, start, 5)
    latent, _ = train(plain, lambda x: grads, tx.init(start).latent, 5)
    # Two programs for adam's step.
    np.testing.assert_allclose(state.latent, latent, rtol=1e-6)
    # From step 5 on the force of 2 outweighs the gradients.
    _, state = train(tx, lambda x: grads, start, 300)
    assert np.all(np.abs(state.latent) < 0.1)


@pytest.mark.parametrize("factor", [0.0, 0.5, 2.0])
def test_a_schedule_scales_the_force_and_leaves_the_dead_zone(factor: float) -> None:
    tx = jaxreg.regularize(
        record_gradients(), jaxreg.L1(0.25), 0.5, schedule=lambda count: factor
    )
    params = jnp.array([1.0, -2.0, 0.0])
    state = tx.init(params)
    updates, state = tx.update(jnp.zeros(3), state, params)
    force = state.inner_optimizer
    np.testing.assert_array_equal(force, [0.25 * factor, -0.25 * factor, 0.0])
    moved = jnp.array([1.5, -2.5, 0.0]) - 0.1 * force
    np.testing.assert_array_equal(state.latent, moved)
    expected = jnp.array([moved[0] - 0.5, moved[1] + 0.5, 0.0]) - params
    np.testing.assert_array_equal(updates, expected)


def test_the_schedule_counts_its_steps_from_zero() -> None:
    tx = jaxreg.regularize(record_gradients(), jaxreg.L1(1.0), 0.5, lambda count: count)
    _, states = history(tx, jnp.zeros_like, jnp.array([4.0]), 3)
    # z - prox(z) has the rounding of numbers near 4.
    forces = states.inner_optimizer[:, 0]
    np.testing.assert_allclose(forces, [0.0, 1.0, 2.0], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_a_run_in_another_precision_keeps_it_and_finds_the_zeros(dtype: str) -> None:
    with jax.enable_x64(True):
        target = jnp.asarray([2.0, -1.0, 0.2, 0.0], dtype)
        tx = jaxreg.regularize(optax.adam(3e-2), jaxreg.L1(0.5))
        start = jnp.asarray([1.0, 1.0, 1.0, 1.0], dtype)
        params, state = train(tx, lambda x: x - target, start, 800)
        assert params.dtype == dtype
        assert state.latent.dtype == jnp.promote_types(dtype, jnp.float32)
    # float16 gradients are exact to 1e-3 of 2; adam's last steps shrink to nothing.
    np.testing.assert_allclose(params, [1.5, -0.5, 0.0, 0.0], rtol=0, atol=2e-3)
    np.testing.assert_array_equal(params[2:], 0.0)
