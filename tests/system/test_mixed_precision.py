"""Half-precision weights and gradients: exact zeros, and small steps that add up."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from tests.support.training import train

RATE, STRENGTH, STEPS = 2e-2, 0.2, 250
L1 = jaxreg.L1(STRENGTH)
ROWS = jaxreg.GroupLasso(STRENGTH, group_axis=0)

# Rows of zeros, which every way below must find or keep; the rest stays away from zero.
_rng = np.random.default_rng(0)
TARGET = np.zeros((8, 4), "f4")
TARGET[:4] = _rng.uniform(0.7, 1.5, size=(4, 4))
START = _rng.uniform(0.1, 0.3, size=(8, 4)).astype("f4")

FINDS = {
    "regularize": jaxreg.regularize(optax.adam(RATE), L1),
    "regularize in groups": jaxreg.regularize(optax.adam(RATE), ROWS),
    "target_sparsity": jaxreg.target_sparsity(optax.adam(RATE), L1, 0.5, STEPS // 2),
    "prox_sgd": jaxreg.prox_sgd(RATE, L1),
    "prox_adam": jaxreg.prox_adam(RATE, L1),
    "prox_adam in groups": jaxreg.prox_adam(RATE, ROWS),
    "shrink": optax.chain(optax.sgd(RATE), jaxreg.shrink(L1, RATE)),
    "dual_average": jaxreg.dual_average(RATE, L1),
    "ftrl": jaxreg.ftrl(1.0, L1),
    "project": optax.chain(optax.sgd(RATE), jaxreg.project(jaxreg.TopK(16))),
}
# Optax's own adam divides 0 by 0 where float16 gradients are small.
SGD = optax.sgd(RATE, momentum=0.9)
HOLDS = {
    "hold_support": optax.chain(SGD, jaxreg.hold_support(L1)),
    "orthant": optax.chain(SGD, jaxreg.orthant(L1)),
    "half_space": optax.chain(SGD, jaxreg.half_space(ROWS)),
}
# The dtypes of weights and gradients; CI runs all.
DTYPES = [
    ("bfloat16", "bfloat16"),
    ("float32", "bfloat16"),
    pytest.param("float16", "float16", marks=pytest.mark.slow),
    pytest.param("float32", "float16", marks=pytest.mark.slow),
]
every_dtype = pytest.mark.parametrize(("weights", "gradients"), DTYPES)


def trained(
    tx: Any, start: Any, weights: str, gradients: str, noise: float = 0.0
) -> tuple[Any, Any]:
    """The parameters and the state after `STEPS` steps."""
    jitter = noise * jax.random.normal(jax.random.key(0), (STEPS, *TARGET.shape))

    def grads_of(params: Any, jitter: Any) -> Any:
        return {"w": (params["w"] - TARGET + jitter).astype(gradients)}

    return train(tx, grads_of, {"w": jnp.asarray(start, weights)}, jitter)


def assert_dtype_and_zeros(tx: Any, params: Any, state: Any, weights: str) -> None:
    updates, _ = jax.eval_shape(tx.update, params, state, params)
    assert params["w"].dtype == updates["w"].dtype == weights
    np.testing.assert_array_equal(params["w"] == 0, TARGET == 0)


@every_dtype
@pytest.mark.parametrize("way", FINDS)
def test_the_zeros_that_training_finds_are_exact(
    way: str, weights: str, gradients: str
) -> None:
    params, state = trained(FINDS[way], START, weights, gradients)
    assert_dtype_and_zeros(FINDS[way], params, state, weights)


@every_dtype
@pytest.mark.parametrize("way", HOLDS)
def test_the_zeros_that_are_held_stay_exact_under_noise(
    way: str, weights: str, gradients: str
) -> None:
    start = np.where(TARGET == 0, 0, START + 0.5)
    params, state = trained(HOLDS[way], start, weights, gradients, noise=0.1)
    assert_dtype_and_zeros(HOLDS[way], params, state, weights)


@every_dtype
def test_zeros_of_regularize_stay_exact_under_noise(
    weights: str, gradients: str
) -> None:
    tx = FINDS["regularize"]
    params, _ = trained(tx, START, weights, gradients, noise=0.05)
    np.testing.assert_array_equal(params["w"] == 0, TARGET == 0)


@pytest.mark.parametrize("weights", ["bfloat16", "float16"])
def test_latents_and_moments_of_half_precision_are_float32(
    weights: str,
) -> None:
    tx = FINDS["regularize"]
    # Gradients of either dtype leave the types of the state as they are.
    for gradients in (weights, "float32"):
        params, state = trained(tx, START, weights, gradients)
        latent, (moments, *_) = jaxreg.latent(state)
        for tree in (latent, moments.mu, moments.nu):
            assert tree["w"].dtype == jnp.float32
        # The latent's prox, rounded on the way into params and into the update.
        prox = L1.prox(latent, L1.step_for(0.05))["w"]
        eps = float(jnp.finfo(weights).eps)
        np.testing.assert_allclose(params["w"].astype("f4"), prox, rtol=eps)


def test_leaves_of_several_dtypes_each_keep_their_own() -> None:
    dtypes = ("bfloat16", "float16", "float32")
    params = {dtype: jnp.asarray(START, dtype) for dtype in dtypes}
    tx = FINDS["regularize"]
    grads = {dtype: jnp.asarray(-TARGET, dtype) for dtype in dtypes}
    updates, state = jax.jit(tx.update)(grads, tx.init(params), params)
    latent, _ = jaxreg.latent(state)
    for dtype in dtypes:
        assert updates[dtype].dtype == dtype
        assert latent[dtype].dtype == jnp.float32


@pytest.mark.parametrize("weights", ["bfloat16", "float16"])
def test_tiny_steps_move_half_precision_weights_as_float32_ones(
    weights: str,
) -> None:
    # 2,000 steps that are each below half a unit of the weights, in all 0.1.
    rate, start = 5e-5, jnp.array([1.0, -0.75, 0.03125, 0.5])

    def end(dtype: str) -> Any:
        tx = jaxreg.regularize(optax.sgd(rate), jaxreg.L1(1.0))
        params, state = train(tx, jnp.zeros_like, start.astype(dtype), 2000)
        return np.asarray(params, "f4"), np.asarray(jaxreg.latent(state)[0])

    (half, half_latent), (single, latent) = end(weights), end("float32")
    np.testing.assert_allclose(single, [0.9, -0.65, 0.0, 0.4], atol=1e-3)
    # The same float32 sums, in two programs: 2,000 roundings of numbers near 1.
    np.testing.assert_allclose(half_latent, latent, atol=2000 * 2.0**-24)
    np.testing.assert_allclose(half, single, rtol=float(jnp.finfo(weights).eps))
    np.testing.assert_array_equal(half == 0, single == 0)


@pytest.mark.parametrize("way", ["shrink", "prox_sgd", "prox_adam"])
def test_tiny_bfloat16_steps_stagnate_without_a_latent(way: str) -> None:
    rate, penalty = 1e-4, jaxreg.L1(1.0)
    tx = {
        "shrink": optax.chain(optax.sgd(rate), jaxreg.shrink(penalty, rate)),
        "prox_sgd": jaxreg.prox_sgd(rate, penalty),
        "prox_adam": jaxreg.prox_adam(rate, penalty),
    }[way]

    def end(dtype: str) -> Any:
        # Half a unit of bfloat16 at 1 is 2 ** -9, twenty times a step.
        return train(tx, lambda x: jnp.full_like(x, 0.5), jnp.ones(4, dtype), 30)[0]

    np.testing.assert_array_equal(end("bfloat16"), 1.0)
    assert np.all(end("float32") < 1 - 25 * rate)
