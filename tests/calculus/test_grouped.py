"""The factor of a group: exact where a group is left alone, and its derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg


@pytest.mark.parametrize(
    "penalty, step",
    [
        (jaxreg.GroupLasso(0.3, group_axis=0), 0.0),
        (jaxreg.GroupLasso(0.3, group_axis=0), np.zeros((500, 7), "f4")),
        (jaxreg.grouped(jaxreg.MCP(0.3, knot=1e-9), group_axis=0), 1e-12),
    ],
    ids=["no step", "no steps", "beyond the knot"],
)
def test_groups_that_a_penalty_leaves_alone_stay_to_the_bit(penalty, step) -> None:
    # It bites on a GPU, where one in seven quotients of a number and itself is not 1.
    scales = 10.0 ** jnp.linspace(-6, 6, 500)[:, None]
    leaf = scales * jax.random.normal(jax.random.key(3), (500, 7))
    np.testing.assert_array_equal(jax.jit(penalty.prox)(leaf, step), leaf)


@pytest.mark.slow
def test_a_strength_of_zero_has_its_derivative_in_groups() -> None:
    leaf = jnp.array([[3.0, -4.0], [0.0, 2.0]])

    def shrunk(strength: jax.Array, step: jax.Array) -> jax.Array:
        return jaxreg.GroupLasso(strength, group_axis=0).prox(leaf, step)

    unit = leaf / jnp.sqrt(jnp.mean(leaf**2, axis=1, keepdims=True))
    for step in (0.5, jnp.full((2, 2), 0.5)):
        for derivative in (jax.jacfwd, jax.jacrev):
            found = derivative(shrunk)(jnp.float32(0.0), step)
            np.testing.assert_allclose(found, -0.5 * unit, rtol=1e-6)


@pytest.mark.parametrize("kind", [jaxreg.L1, jaxreg.L2])
def test_a_float64_strength_has_a_derivative_in_float32_groups(kind, x64) -> None:
    leaf = jnp.array([[3.0, -4.0]], jnp.float32)

    def shrunk(strength: jax.Array, steps: jax.Array) -> jax.Array:
        return jaxreg.grouped(kind(strength), group_axis=0).prox(leaf, steps)

    for steps in (jnp.float32(0.5), jnp.array([[0.5, 0.5]], jnp.float32)):
        found = jax.jacrev(shrunk)(jnp.float64(0.3), steps)
        ends = (shrunk(jnp.float64(0.3 + d), steps) for d in (0.01, -0.01))
        np.testing.assert_allclose(found, np.subtract(*ends) / 0.02, rtol=1e-3)
