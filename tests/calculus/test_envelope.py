"""Facts of envelopes and conjugates beyond the laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg

pytestmark = pytest.mark.slow

V = np.linspace(-3, 3, 13)
L1 = jaxreg.L1(0.3)


def test_the_envelope_of_the_l1_norm_is_hubers_function(x64) -> None:
    size, knot = abs(V), 0.6 * 0.5
    huber = np.where(size <= knot, V**2 / (2 * 0.5), 0.6 * (size - knot / 2))
    found = jaxreg.envelope(jaxreg.L1(0.6), 0.5).value(V)
    np.testing.assert_allclose(found, huber.sum(), rtol=1e-14)


def test_the_envelope_of_l2_is_a_weaker_l2(x64) -> None:
    smooth, weaker = jaxreg.envelope(jaxreg.L2(0.4), 0.5), jaxreg.L2(0.4 / 1.4)
    np.testing.assert_allclose(smooth.value(V), weaker.value(V), rtol=1e-14)
    np.testing.assert_allclose(smooth.prox(V, 0.7), weaker.prox(V, 0.7), rtol=1e-14)
    np.testing.assert_allclose(smooth.step_for(0.1), weaker.step_for(0.1), rtol=1e-6)


def test_the_envelope_of_a_constraint_is_half_a_squared_distance(x64) -> None:
    v = jnp.array([3.0, 4.0])
    smooth = jaxreg.envelope(jaxreg.L2Ball(1.0), 0.5)
    np.testing.assert_allclose(smooth.value(v), 4.0**2 / (2 * 0.5), rtol=1e-14)
    pull = smooth.subgradient(v)
    np.testing.assert_allclose(pull, (v - v / 5) / 0.5, rtol=1e-14)


@pytest.mark.parametrize("step", [0.1, 1.0])
@pytest.mark.parametrize("penalty", [L1, jaxreg.L2(0.5), jaxreg.ElasticNet(0.2, 0.3)])
def test_the_step_for_a_width_takes_twice_the_width_to_it(
    penalty: jaxreg.Penalty, step: float
) -> None:
    smooth = jaxreg.envelope(penalty, step)
    for width in (0.01, 0.05, 1.0):
        out = smooth.prox(jnp.array([2 * width]), smooth.step_for(width))
        # One rounding of float32.
        assert 0 <= float(out[0]) <= width * (1 + 1e-6)


def test_the_envelope_has_the_right_derivative_by_its_step(
    x64,
) -> None:
    def value(step):
        return jaxreg.envelope(L1, step).value(V)

    quotient = (value(0.5 + 1e-6) - value(0.5 - 1e-6)) / 2e-6
    # Central differences in float64.
    np.testing.assert_allclose(jax.grad(value)(0.5), quotient, rtol=1e-7)


@pytest.mark.parametrize("step", [0.2, np.linspace(0.1, 2, 13)])
def test_the_conjugate_of_a_norm_is_projected_on(step, x64) -> None:
    found = jaxreg.conjugate_prox(jaxreg.L1(0.8), V, step)
    np.testing.assert_allclose(found, np.clip(V, -0.8, 0.8), rtol=1e-14)
    ridge = jaxreg.conjugate_prox(jaxreg.L2(0.8), V, step)
    np.testing.assert_allclose(ridge, V / (1 + step / 1.6), rtol=1e-14, atol=1e-15)


def test_the_conjugate_takes_a_step_of_zero_and_rules() -> None:
    params = {"kernel": jnp.array([3.0, -0.5]), "bias": jnp.array([2.0])}
    rules = jaxreg.on_kernels(jaxreg.L1(1.0))
    still = jaxreg.conjugate_prox(rules, params, 0.0)
    np.testing.assert_array_equal(still["kernel"], params["kernel"])
    found = jaxreg.conjugate_prox(rules, params, 0.5)
    np.testing.assert_allclose(found["kernel"], [1.0, -0.5], rtol=1e-6)
    # The conjugate of no penalty is infinite but at 0.
    np.testing.assert_allclose(found["bias"], [0.0], atol=1e-6)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    assert jaxreg.conjugate_prox(rules, half, 0.5)["kernel"].dtype == jnp.bfloat16


def test_a_penalty_without_conjugate_or_envelope_raises() -> None:
    with pytest.raises(ValueError, match="the penalty is not convex"):
        jaxreg.conjugate_prox(jaxreg.Hierarchical(1.0, 1.0, skip=0), V, 1.0)
    for act in (jaxreg.envelope, lambda one, step: jaxreg.conjugate_prox(one, V, step)):
        with pytest.raises(TypeError, match="has no prox, only a gradient"):
            act(jaxreg.Orthogonality(1.0, group_axis=0), 1.0)
    with pytest.raises(TypeError, match=r"penalty is 0.3; allowed: a jaxreg penalty"):
        jaxreg.conjugate_prox(0.3, V, 1.0)
    with pytest.raises(ValueError, match=r"step of Envelope.* a finite number > 0"):
        jaxreg.on_kernels(jaxreg.envelope(L1, 0.0))
