"""Special cases of NNX, Linen, Equinox and Haiku; `test_networks` has the rest."""

from typing import Any

import equinox as eqx
import flax.linen as nn
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState

import jaxreg
from tests.support.network_models import NnxMlp
from tests.support.networks import NETWORKS

STEPS = 100

# Only the first two inputs matter, so rows of the first kernel can die.
DATA, ANSWERS = NETWORKS["mlp"].inputs, NETWORKS["mlp"].answers
INPUTS, HIDDEN = DATA.shape[1], 16

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


class UnnamedMlp(nn.Module):
    """Two layers that Linen names."""

    @nn.compact
    def __call__(self, data: Any) -> Any:
        return nn.Dense(1)(nn.relu(nn.Dense(HIDDEN)(data)))


@nnx.jit
def nnx_step(model: Any, optimizer: Any) -> Any:
    loss, grads = nnx.value_and_grad(lambda m: mean_square(m(DATA)))(model)
    optimizer.update(model, grads)
    return loss


def train_nnx(model: Any, optimizer: Any, steps: int = STEPS) -> list[float]:
    return [float(nnx_step(model, optimizer)) for _ in range(steps)]


def weights_of(model: Any) -> Any:
    return jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, nnx.Param)))


def test_group_rules_zero_whole_input_rows_of_an_nnx_model() -> None:
    model = NnxMlp(nnx.Rngs(0))
    rules = rows_then_entries("first/kernel$", "kernel$")
    optimizer = nnx.Optimizer(model, adam(rules), wrt=nnx.Param)
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
    in_init = jaxreg.rules.by_path.paths(state)
    in_update = jaxreg.rules.by_path.paths(nnx.to_pure_dict(state))
    assert in_init == in_update
    assert "first/kernel" in in_init


def test_a_linen_train_state_trains_to_exact_zeros() -> None:
    penalty = rows_then_entries("^Dense_0/kernel$", "kernel$")
    model = UnnamedMlp()
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


def train_plainly(tx: Any, loss: Any, params: Any) -> Any:
    @jax.jit
    def run(params: Any) -> Any:
        def step(carry: Any, _: None) -> Any:
            params, state = carry
            value, grads = jax.value_and_grad(loss)(params)
            updates, state = tx.update(grads, state, params)
            return (eqx.apply_updates(params, updates), state), value

        return jax.lax.scan(step, (params, tx.init(params)), length=STEPS)

    (params, _), losses = run(params)
    assert losses[-1] < 0.5 * losses[0]
    return params


def test_a_haiku_dict_trains_to_exact_zeros() -> None:
    rng = np.random.default_rng(0)

    def layer(inputs: int, outputs: int) -> Any:
        w = rng.normal(size=(inputs, outputs)) / inputs**0.5
        return {"w": jnp.asarray(w, "f4"), "b": jnp.zeros(outputs)}

    # Haiku's names have slashes of their own, and w is (inputs, outputs).
    names = ("mlp/~/linear_0", "mlp/~/linear_1")
    params = {names[0]: layer(INPUTS, HIDDEN), names[1]: layer(HIDDEN, 1)}

    def loss(params: Any) -> Any:
        first, second = (params[name] for name in names)
        hidden = jax.nn.relu(DATA @ first["w"] + first["b"])
        return mean_square(hidden @ second["w"] + second["b"])

    tx = adam(rows_then_entries("^mlp/~/linear_0/w$", "/w$"))
    params = train_plainly(tx, loss, params)
    dead = np.all(params[names[0]]["w"] == 0, axis=1)
    assert dead.any()
    assert not dead[:2].any()
    assert np.all(params[names[0]]["b"] != 0)


def test_an_equinox_model_trains_to_exact_zeros() -> None:
    model = eqx.nn.MLP(INPUTS, 1, HIDDEN, depth=1, key=jax.random.key(0))
    # Equinox keeps (outputs, inputs), so an input is a column.
    columns = jaxreg.GroupLasso(4e-2, group_axis=1)
    rules = [("layers/0/weight$", columns), ("weight$", jaxreg.L1(5e-3))]
    tx = adam(jaxreg.by_path(rules))
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(params: Any) -> Any:
        return mean_square(jax.vmap(eqx.combine(params, static))(DATA))

    params = train_plainly(tx, loss, params)
    dead = np.all(params.layers[0].weight == 0, axis=0)
    assert dead.any()
    assert not dead[:2].any()
    assert np.all(params.layers[0].bias != 0)
