"""Real models of Flax NNX, Flax Linen and Equinox, trained for some steps."""

from typing import Any

import equinox as eqx
import flax.linen as nn
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState

import jaxreg

STEPS = 100
INPUTS, HIDDEN = 8, 16

# Only the first two inputs matter, so rows of the first kernel can die.
DATA = jnp.asarray(np.random.default_rng(0).normal(size=(64, INPUTS)), "f4")
ANSWERS = jnp.sin(2 * DATA[:, :1]) + DATA[:, 1:2]

KERNELS = jaxreg.on_kernels(jaxreg.L1(5e-3))


def rows_then_entries(first: str, others: str) -> Any:
    """Whole input rows of the first layer, and entries of the others."""
    return jaxreg.by_path(
        [(first, jaxreg.GroupLasso(4e-2, group_axis=0)), (others, jaxreg.L1(5e-3))]
    )


def adam(penalty: Any) -> Any:
    return jaxreg.regularize(optax.adam(1e-2), penalty, width=0.02)


def mean_square(answers: Any) -> Any:
    return jnp.mean((answers - ANSWERS) ** 2)


class NnxMlp(nnx.Module):
    """Two layers, named by attributes."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(INPUTS, HIDDEN, rngs=rngs)
        self.second = nnx.Linear(HIDDEN, 1, rngs=rngs)

    def __call__(self, data: Any) -> Any:
        return self.second(nnx.relu(self.first(data)))


class LinenMlp(nn.Module):
    """The same two layers, named by Linen."""

    @nn.compact
    def __call__(self, data: Any) -> Any:
        hidden = nn.relu(nn.Dense(HIDDEN)(data))
        return nn.Dense(1)(hidden)


@nnx.jit
def nnx_step(model: Any, optimizer: Any) -> Any:
    loss, grads = nnx.value_and_grad(lambda m: mean_square(m(DATA)))(model)
    optimizer.update(model, grads)
    return loss


def train_nnx(model: Any, optimizer: Any, steps: int = STEPS) -> list[float]:
    return [float(nnx_step(model, optimizer)) for _ in range(steps)]


def weights_of(model: Any) -> Any:
    return jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Param)))


def answer(weights: Any, data: Any) -> Any:
    first, second = weights["first"], weights["second"]
    hidden = jax.nn.relu(data @ first["kernel"] + first["bias"])
    return hidden @ second["kernel"] + second["bias"]


def train_plainly(tx: Any, weights: Any, steps: int = STEPS) -> Any:
    @jax.jit
    def step(weights: Any, state: Any) -> Any:
        grads = jax.grad(lambda w: mean_square(answer(w, DATA)))(weights)
        updates, state = tx.update(grads, state, weights)
        return optax.apply_updates(weights, updates), state

    weights = jax.tree.map(jnp.asarray, weights)
    state = tx.init(weights)
    for _ in range(steps):
        weights, state = step(weights, state)
    return weights, state


PENALTIES = {
    "on_kernels": KERNELS,
    "by_path": rows_then_entries("first/kernel$", "kernel$"),
}
every_penalty = pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)


@every_penalty
def test_nnx_and_a_plain_loop_give_the_same_numbers(penalty: Any) -> None:
    model = NnxMlp(nnx.Rngs(0))
    start, tx = weights_of(model), adam(penalty)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    losses = train_nnx(model, optimizer)
    plain, _ = train_plainly(tx, start)
    # Two programs: sums of 64 terms in another order, and adam divides small
    # gradients by their own size, which carries a rounding over 100 steps.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
        weights_of(model),
        plain,
    )
    assert losses[-1] < 0.5 * losses[0]


@every_penalty
def test_nnx_kernels_get_exact_zeros_and_biases_none(penalty: Any) -> None:
    model = NnxMlp(nnx.Rngs(0))
    train_nnx(model, nnx.Optimizer(model, adam(penalty), wrt=nnx.Param))
    weights = weights_of(model)
    assert np.mean(weights["first"]["kernel"] == 0) > 0.05
    assert np.all(weights["first"]["bias"] != 0)


def test_group_rules_zero_whole_input_rows_of_an_nnx_model() -> None:
    model = NnxMlp(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, adam(PENALTIES["by_path"]), wrt=nnx.Param)
    train_nnx(model, optimizer)
    dead = np.all(weights_of(model)["first"]["kernel"] == 0, axis=1)
    # The two inputs that matter live, most of the others are gone whole.
    assert not dead[:2].any()
    assert dead[2:].sum() >= 3
    partly = np.any(weights_of(model)["first"]["kernel"] == 0, axis=1) & ~dead
    assert not partly.any()


def test_an_nnx_optimizer_survives_split_merge_and_goes_on_alike() -> None:
    def halves(round_trip: bool) -> Any:
        model = NnxMlp(nnx.Rngs(0))
        optimizer = nnx.Optimizer(model, adam(KERNELS), wrt=nnx.Param)
        train_nnx(model, optimizer, 5)
        if round_trip:
            definition, state = nnx.split((model, optimizer))
            leaves, treedef = jax.tree.flatten(state)
            restored = jax.tree.unflatten(treedef, map(jnp.array, leaves))
            model, optimizer = nnx.merge(definition, restored)
        train_nnx(model, optimizer, 5)
        latent, _ = jaxreg.latent(nnx.as_pure(optimizer.opt_state))
        return weights_of(model), latent

    kept, restored = halves(False), halves(True)
    jax.tree.map(np.testing.assert_array_equal, kept, restored)


def test_the_rules_see_one_path_in_nnx_init_and_update() -> None:
    model = NnxMlp(nnx.Rngs(0))
    # The anchors fail on any path that still carries the variable's `.value`.
    exact = jaxreg.by_path([("^first/kernel$", jaxreg.L1(1e-3))])
    optimizer = nnx.Optimizer(model, adam(exact), wrt=nnx.Param)
    latent, _ = jaxreg.latent(nnx.as_pure(optimizer.opt_state))
    assert isinstance(latent["second"]["kernel"], optax.MaskedNode)
    nnx_step(model, optimizer)
    state = nnx.state(model, nnx.Param)
    in_init = jaxreg.rules.paths(state)
    in_update = jaxreg.rules.paths(nnx.to_pure_dict(state))
    assert in_init == in_update
    assert "first/kernel" in in_init


@pytest.mark.parametrize("kind", ["on_kernels", "by_path"])
def test_a_linen_train_state_trains_to_exact_zeros(kind: str) -> None:
    by_path = rows_then_entries("Dense_0/kernel$", "kernel$")
    penalty = KERNELS if kind == "on_kernels" else by_path
    model = LinenMlp()
    params = model.init(jax.random.key(0), DATA)["params"]
    state = TrainState.create(apply_fn=model.apply, params=params, tx=adam(penalty))

    @jax.jit
    def step(state: Any) -> Any:
        def loss(params: Any) -> Any:
            return mean_square(state.apply_fn({"params": params}, DATA))

        value, grads = jax.value_and_grad(loss)(state.params)
        return state.apply_gradients(grads=grads), value

    losses = []
    for _ in range(STEPS):
        state, value = step(state)
        losses.append(float(value))
    assert losses[-1] < 0.5 * losses[0]
    assert np.mean(state.params["Dense_0"]["kernel"] == 0) > 0.05
    assert np.all(state.params["Dense_0"]["bias"] != 0)
    latent, _ = jaxreg.latent(state.opt_state)
    assert isinstance(latent["Dense_0"]["bias"], optax.MaskedNode)


def test_an_equinox_model_trains_to_exact_zeros() -> None:
    model = eqx.nn.MLP(INPUTS, 1, HIDDEN, depth=1, key=jax.random.key(0))
    # Equinox keeps (outputs, inputs), so an input is a column.
    columns = jaxreg.GroupLasso(4e-2, group_axis=1)
    rules = [("layers/0/weight$", columns), ("weight$", jaxreg.L1(5e-3))]
    tx = adam(jaxreg.by_path(rules))
    params, static = eqx.partition(model, eqx.is_inexact_array)

    @jax.jit
    def step(params: Any, state: Any) -> Any:
        def loss(params: Any) -> Any:
            return mean_square(jax.vmap(eqx.combine(params, static))(DATA))

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params)
        return eqx.apply_updates(params, updates), state, value

    state, losses = tx.init(params), []
    for _ in range(STEPS):
        params, state, value = step(params, state)
        losses.append(float(value))
    assert losses[-1] < 0.5 * losses[0]
    dead = np.all(params.layers[0].weight == 0, axis=0)
    assert dead.any()
    assert not dead[:2].any()
    assert np.all(params.layers[0].bias != 0)


@pytest.mark.parametrize("framework", ["nnx", "linen"])
def test_the_penalty_never_reaches_a_bias(framework: str) -> None:
    # With the gradient of the loss set to 0, only the penalty can move a leaf.
    if framework == "nnx":
        model = NnxMlp(nnx.Rngs(0))
        params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    else:
        params = LinenMlp().init(jax.random.key(0), DATA)["params"]
    params = jax.tree.map(lambda leaf: leaf + 1.0, params)
    tx = adam(KERNELS)
    updates, _ = tx.update(
        jax.tree.map(jnp.zeros_like, params), tx.init(params), params
    )
    for layer in updates.values():
        np.testing.assert_array_equal(layer["bias"], 0.0)
        assert np.all(layer["kernel"] != 0)
