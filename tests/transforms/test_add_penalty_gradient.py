"""`add_penalty_gradient` against Optax's decay and against a penalised loss."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from tests.support.training import train
from tests.support.trees import assert_equal

SHAPES = {"in": (30, 7), "out": (7, 3)}


def make_params(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.normal(size=s), "f4") for name, s in SHAPES.items()}


def run(tx: Any, steps: int) -> Any:
    grads = [make_params(seed + 1) for seed in range(steps)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *grads)
    return train(tx, lambda params, grads: grads, make_params(0), stacked)[0]


@pytest.mark.parametrize("strength", [0.0, 1e-4, 0.3])
@pytest.mark.parametrize("jit", [False, True])
def test_l2_is_add_decayed_weights_of_twice_its_strength(
    strength: float, jit: bool
) -> None:
    ours = jaxreg.add_penalty_gradient(jaxreg.L2(strength))
    theirs = optax.add_decayed_weights(2 * strength)
    params, grads = make_params(0), make_params(1)
    wrap = jax.jit if jit else lambda update: update
    left, _ = wrap(ours.update)(grads, ours.init(params), params)
    right, _ = wrap(theirs.update)(grads, theirs.init(params), params)
    assert_equal(left, right)


def test_l2_between_adam_and_the_learning_rate_is_adamw() -> None:
    ours = optax.chain(
        optax.scale_by_adam(),
        jaxreg.add_penalty_gradient(jaxreg.L2(0.1 / 2)),
        optax.scale_by_learning_rate(1e-2),
    )
    assert_equal(run(ours, 5), run(optax.adamw(1e-2, weight_decay=0.1), 5))


PENALTIES = {
    "L1": jaxreg.L1(0.3),
    "ElasticNet": jaxreg.ElasticNet(0.3, 0.2),
    "GroupLasso": jaxreg.GroupLasso(0.3, group_axis=0),
    "by_path": jaxreg.by_path([("in", jaxreg.L1(0.3)), ("out", jaxreg.L2(0.2))]),
}


@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
def test_it_adds_the_gradient_of_the_penalty_to_that_of_the_loss(penalty: Any) -> None:
    def loss(params: Any) -> Any:
        return sum(jnp.sum(jnp.cos(leaf)) for leaf in params.values())

    def penalised_loss(params: Any) -> Any:
        return loss(params) + penalty.value(params)

    params = make_params(0)
    # Exact zeros are where the two could differ.
    params = jax.tree.map(lambda leaf: leaf.at[0].set(0.0), params)
    tx = jaxreg.add_penalty_gradient(penalty)
    updates, _ = tx.update(jax.grad(loss)(params), tx.init(params), params)
    expected = jax.grad(penalised_loss)(params)
    # A group's norm and its derivative take other roundings than its direction.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6),
        updates,
        expected,
    )


def test_it_leaves_no_exact_zero_near_the_penalised_minimum() -> None:
    target = jnp.array([2.0, 0.1, -2.0])
    # A falling rate: at a constant one the middle weight would swing around 0.
    rate = optax.linear_schedule(0.1, 0.0, 300)
    tx = optax.chain(jaxreg.add_penalty_gradient(jaxreg.L1(0.5)), optax.sgd(rate))
    params, _ = train(tx, lambda x: x - target, jnp.ones(3), 300)
    # The last swings around 0 are those of rates near 1e-3.
    np.testing.assert_allclose(params, [1.5, 0.0, -1.5], rtol=0, atol=2e-3)
    assert np.all(params != 0)


def test_free_leaves_pass_through_untouched() -> None:
    penalty = jaxreg.by_path([("in", jaxreg.L2(0.2))])
    tx = jaxreg.add_penalty_gradient(penalty)
    grads, params = make_params(1), make_params(0)
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_array_equal(updates["out"], grads["out"])
    assert np.all(updates["in"] != grads["in"])


def test_bfloat16_gradients_are_added_in_float32() -> None:
    params = jnp.asarray([1.0, -3.0, 0.7], jnp.bfloat16)
    grads = jnp.asarray([0.011, 2.0, -1.0], jnp.bfloat16)
    tx = jaxreg.add_penalty_gradient(jaxreg.L2(0.0123))
    updates, _ = tx.update(grads, tx.init(params), params)
    wide = np.asarray(grads, "f4") + np.float32(0.0246) * np.asarray(params, "f4")
    assert updates.dtype == jnp.bfloat16
    np.testing.assert_array_equal(updates, jnp.asarray(wide, jnp.bfloat16))
