"""`target_sparsity` beside other rules, in half precision, and with bad arguments."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxreg
from tests.support.training import train
from tests.transforms.test_target_sparsity import (
    ADAM,
    END,
    GOAL,
    L1,
    SLOW,
    kernels,
    make_params,
    trained,
    zeros,
)


def test_other_rules_act_as_under_regularize_all_the_time() -> None:
    rules = [
        ("bias$", jaxreg.Box(-0.5, 0.5)),
        ("^b/kernel$", jaxreg.L2(0.5)),
        ("kernel$", jaxreg.L1(0.01)),
    ]
    tx = jaxreg.target_sparsity(optax.sgd(0.02), jaxreg.by_path(rules), 0.5, END)
    (params, _), (_, states) = trained(tx, 800)
    assert np.sum(kernels(params)[0] == 0) == 60
    assert float(np.max(states.next_factor)) > 3
    # Half the goal is the answer of ridge at strength 1/2; the bias goes to its bound.
    np.testing.assert_allclose(kernels(params)[1], kernels(GOAL)[1] / 2, atol=1e-4)
    np.testing.assert_allclose(params["b"]["bias"], 0.5, atol=1e-6)


def test_a_clip_inside_does_not_see_gradients_of_held_zeros() -> None:
    clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1))
    tx = jaxreg.target_sparsity(clipped, L1, 0.9, END)
    (params, state), _ = trained(tx, END)
    dead = jax.tree.map(lambda x: x == 0, params)
    (params, _), _ = trained(tx, 400, params, state)
    for kernel, goal, mask in zip(*map(kernels, (params, GOAL, dead)), strict=True):
        np.testing.assert_allclose(kernel[~mask], goal[~mask], atol=1e-5)
        assert np.all(kernel[mask] == 0)


def test_the_state_says_what_the_landing_cut() -> None:
    weak = jaxreg.on_kernels(jaxreg.L1(1e-9))
    tx = jaxreg.target_sparsity(ADAM, weak, 0.5, END)
    (_, state), _ = trained(tx, END)
    assert float(state.cut) > 0.4
    strong = jaxreg.on_kernels(jaxreg.L1(0.3))
    (_, state), _ = trained(jaxreg.target_sparsity(ADAM, strong, 0.5, END), END)
    assert 0 <= float(state.cut) < 0.2


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_after_the_landing_small_steps_add_up(dtype: str) -> None:
    params = {"w": jnp.linspace(-1.0, 1.0, 400).astype(dtype)}
    tx = jaxreg.target_sparsity(optax.sgd(1e-4), jaxreg.L1(1e-6), 0.1, end_step=1)
    noise = jax.random.normal(jax.random.key(0), (1000, 400))

    def grads_of(params: Any, jitter: Any) -> Any:
        # Half of the entries drift; the others jitter where they are.
        return {"w": jnp.where(jnp.arange(400) < 200, -1.0, jitter).astype(dtype)}

    _, state = train(tx, grads_of, params, noise)
    latent = jaxreg.latent(state)[0]["w"]
    assert np.sum(latent == 0) == 40
    moved = (latent - params["w"].astype("float32"))[:150]
    # 1,000 steps of 1e-4, where a step is below half a unit of bfloat16.
    np.testing.assert_allclose(moved, 0.1, atol=1e-3)


def test_leaves_without_entries_and_empty_trees_are_no_matter() -> None:
    groups = jaxreg.GroupLasso(1.0, group_axis=1)
    params = {"a": jnp.zeros((0, 3)), "b": jnp.ones((2, 3))}
    for tx in (
        jaxreg.target_sparsity(optax.sgd(0.1), groups, 0.5, 1),
        jaxreg.hold_support(groups),
        jaxreg.reweight(lambda p: jaxreg.prox_sgd(0.1, p), groups, 0.1, 1),
    ):
        updates, _ = tx.update(params, tx.init(params), params)
        assert updates["a"].shape == (0, 3)
    tx = jaxreg.target_sparsity(optax.sgd(0.1), jaxreg.L1(1.0), 0.5, 1)
    assert tx.update({}, tx.init({}), {})[0] == {}


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=SLOW)])
def test_half_precision_reaches_the_target_too(dtype: str) -> None:
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), make_params())
    tx = jaxreg.target_sparsity(ADAM, L1, 0.75, END)
    (params, _), _ = trained(tx, 400, params)
    assert zeros(params) == 150
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(dtype)}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"target": 1.0}, ValueError, "target is 1.0; allowed: the fraction of zer"),
        ({"target": -0.1}, ValueError, "target is -0.1; allowed"),
        ({"target": float("nan")}, ValueError, "target is nan; allowed"),
        ({"end_step": 0}, ValueError, "end_step is 0; allowed: a number of updates"),
        ({"end_step": 2.5}, ValueError, "end_step is 2.5; allowed"),
        ({"begin_step": 10}, ValueError, "allowed: a begin before the end"),
        ({"factor_range": (0.0, 2.0)}, ValueError, "an end of factor_range is 0"),
        ({"factor_range": (2.0, 3.0)}, ValueError, "two numbers around 1"),
        ({"factor_range": 10.0}, ValueError, "two numbers around 1"),
        ({"target": "90%"}, TypeError, "target is '90%'"),
        ({"target": jnp.ones(2)}, ValueError, "target has shape"),
        ({"width": 0.0}, ValueError, "width is 0.0"),
        ({"penalty": jaxreg.L2(1.0)}, TypeError, "Allowed are penalties with a kink"),
        ({"penalty": jaxreg.L1(0.0)}, TypeError, "Allowed are penalties with a kink"),
        ({"penalty": jaxreg.TopK(3)}, TypeError, "Allowed are penalties with a kink"),
        ({"penalty": jaxreg.nonnegative(jaxreg.L1(1.0))}, TypeError, "Allowed are pen"),
        ({"penalty": jaxreg.envelope(jaxreg.L1(1.0), 0.1)}, TypeError, "Allowed are"),
        ({"penalty": jaxreg.NuclearNorm(1.0)}, TypeError, "zeroes no entries or gro"),
        ({"optimizer": 0.1}, TypeError, "optimizer is 0.1"),
    ],
)
def test_bad_arguments_are_refused_with_the_mend(change, error, message) -> None:
    arguments = {"optimizer": ADAM, "penalty": L1, "target": 0.5, "end_step": 10}
    with pytest.raises(error, match=message):
        jaxreg.target_sparsity(**(arguments | change))
