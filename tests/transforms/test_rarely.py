"""A rare change is the same by a cond and by a loop, under every JAX transform."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from jaxreg.transforms.rarely import when


@pytest.fixture(params=["cpu", "gpu"], autouse=True)
def backend(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    # What was traced for the other is traced anew.
    jax.clear_caches()
    monkeypatch.setattr(jax, "default_backend", lambda: request.param)
    yield request.param
    jax.clear_caches()


def changed(x: Any, is_so: Any, scale: Any, count: Any = 2) -> Any:
    def change(old: Any) -> Any:
        return [old[0] * scale + count, old[1]]

    return when(is_so, change, [x, jnp.arange(2)])[0]


X, SCALE = jnp.array([1.0, -2.0]), jnp.float32(3.0)


def test_it_changes_where_it_is_so(backend) -> None:
    text = str(jax.make_jaxpr(changed)(X, True, SCALE, 2))
    assert ("while[" in text, "cond[" in text) == (backend == "gpu", backend == "cpu")
    for transform in (lambda f: f, jax.jit):
        np.testing.assert_array_equal(transform(changed)(X, True, SCALE, 2), [5, -4])
        np.testing.assert_array_equal(transform(changed)(X, False, SCALE, 2), X)


def test_it_maps_over_what_is_so() -> None:
    found = jax.jit(jax.vmap(changed, (None, 0, None)))(
        X, jnp.array([True, False]), SCALE
    )
    np.testing.assert_array_equal(found, [[5, -4], X])


@pytest.mark.parametrize("derivative", [jax.jacfwd, jax.jacrev])
def test_its_derivatives_are_those_of_what_it_did(derivative: Callable) -> None:
    wanted = {True: (3 * np.eye(2), X), False: (np.eye(2), np.zeros(2))}
    for is_so, expected in wanted.items():
        found = jax.jit(derivative(changed, (0, 2)))(X, is_so, SCALE)
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("penalty", [jaxreg.L1(0.1), jaxreg.GroupLasso(0.1, 0)])
def test_a_step_restarts_edited_weights_and_differentiates(penalty, backend) -> None:
    tx = jaxreg.regularize(optax.adam(0.1), penalty)
    # Of a leaf as large as this a sample is looked at.
    start = jax.random.normal(jax.random.key(0), (600, 600))
    state = tx.init(start)

    def next_latent(rows: jax.Array) -> jax.Array:
        _, found = tx.update(jnp.ones_like(rows), state, rows)
        return found.latent

    text = str(jax.make_jaxpr(next_latent)(start))
    assert ("while[" in text, "cond[" in text) == (backend == "gpu", backend == "cpu")
    moved = jax.jit(next_latent)(start) - state.latent
    np.testing.assert_allclose(moved, -0.1, rtol=1e-3)
    edited = 2 * start
    found = jax.jit(next_latent)(edited)
    np.testing.assert_allclose(found, tx.init(edited).latent - 0.1, atol=1e-3)
    # A fresh latent moves with its weight, a latent that stays does not.
    slope = jax.jit(jax.grad(lambda rows: jnp.sum(next_latent(rows))))
    np.testing.assert_allclose(slope(edited), 1.0, atol=0.05)
    np.testing.assert_array_equal(slope(start), 0.0)
