"""Whole journeys: train with coupled units, compact, rebuild, carry, train on.

The smaller model goes on as the original would: what was removed had no gradient, and
the sizes of groups are those of the original.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax.training.train_state import TrainState

import jaxreg
from experiments.kit.data_sets import digits

X = jax.random.normal(jax.random.key(0), (64, 5))
Y = jnp.sin(2 * X[:, :3])
L1 = jaxreg.L1(1e-2)
Step = Callable[[Any, Any], tuple[Any, Any, jax.Array]]


def step_of(tx: Any, apply: Any) -> Step:
    """One step of least squares."""

    @jax.jit
    def step(params: Any, state: Any) -> tuple[Any, Any, jax.Array]:
        loss, grads = jax.value_and_grad(lambda p: jnp.mean((apply(p, X) - Y) ** 2))(
            params
        )
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    return step


def losses(step: Step, params: Any, state: Any, steps: int) -> list[float]:
    out = []
    for _ in range(steps):
        params, state, loss = step(params, state)
        out.append(float(loss))
    return out


def trained(step: Step, params: Any, state: Any, steps: int) -> tuple[Any, Any]:
    for _ in range(steps):
        params, state, _ = step(params, state)
    return params, state


def goes_on_alike(found: list[float], wanted: list[float]) -> None:
    assert wanted[-1] < wanted[0]
    # The terms of a sum over units are fewer, and their order is another.
    np.testing.assert_allclose(found, wanted, rtol=2e-5)


def one_hidden(params: Any, x: jax.Array) -> jax.Array:
    hidden = params["hidden"]
    return jax.nn.relu(x @ hidden["kernel"] + hidden["bias"]) @ params["out"]


@pytest.mark.slow
def test_a_plain_model_goes_on_under_the_penalty_as_the_original() -> None:
    params = {
        "hidden": {
            "bias": jnp.zeros(24),
            "kernel": jax.random.normal(jax.random.key(1), (5, 24)) / 2,
        },
        "out": jax.random.normal(jax.random.key(2), (24, 3)) / 5,
    }
    units = jaxreg.couplings(one_hidden, params, X[:4])
    tx = jaxreg.regularize(optax.adam(2e-2), jaxreg.coupled(L1, units))
    step = step_of(tx, one_hidden)
    params, state = trained(step, params, tx.init(params), 150)
    small = jaxreg.compact(units, params, X[:4])
    width = small.params["hidden"]["bias"].size
    assert 3 <= width <= 18
    penalty = jaxreg.coupled(L1, small.couplings)
    np.testing.assert_allclose(
        penalty.value(small.params), jaxreg.coupled(L1, units).value(params), rtol=1e-5
    )
    new = jaxreg.regularize(optax.adam(2e-2), penalty)
    carried = small.carry(tx, state, new_optimizer=new)
    found = losses(step_of(new, one_hidden), small.params, carried, 12)
    goes_on_alike(found, losses(step, params, state, 12))


def stacked(params: Any, x: jax.Array) -> jax.Array:
    def layer(h: jax.Array, p: Any) -> tuple[jax.Array, None]:
        return h + jax.nn.relu(h @ p["in"] + p["bias"]) @ p["out"], None

    return jax.lax.scan(layer, x, params["layers"])[0] @ params["head"]


@pytest.mark.slow
def test_layers_of_a_scan_keep_units_of_their_own_and_go_on() -> None:
    keys = jax.random.split(jax.random.key(3), 3)
    params = {
        "layers": {
            "in": jax.random.normal(keys[0], (3, 5, 12)) / 3,
            "bias": jnp.zeros((3, 12)),
            "out": jax.random.normal(keys[1], (3, 12, 5)) / 3,
        },
        "head": jax.random.normal(keys[2], (5, 3)) / 2,
    }
    units = jaxreg.couplings(stacked, params, X[:4])
    penalty = jaxreg.coupled(L1, units)
    assert jaxreg.describe(penalty, params).rows[-1]["groups"] == 36
    tx = jaxreg.target_sparsity(optax.adam(1e-2), penalty, 0.5, 100)
    step = step_of(tx, stacked)
    params, state = trained(step, params, tx.init(params), 120)
    assert float(state.reached) == 0.5
    small = jaxreg.compact(units, params, X[:4])
    alive = jnp.any(params["layers"]["out"] != 0, axis=2)
    width = small.params["layers"]["bias"].shape[1]
    assert width == int(alive.sum(1).max()) < 12
    assert len({tuple(row) for row in np.asarray(alive)}) > 1
    new = jaxreg.target_sparsity(
        optax.adam(1e-2), jaxreg.coupled(L1, small.couplings), 0.5, 100
    )
    carried = small.carry(tx, state, new_optimizer=new)
    found = losses(step_of(new, stacked), small.params, carried, 12)
    goes_on_alike(found, losses(step, params, state, 12))


class NnxNet(nnx.Module):
    """A hidden layer with batch normalization."""

    def __init__(self, width: int) -> None:
        rngs = nnx.Rngs(0)
        self.hidden = nnx.Linear(5, width, rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.out = nnx.Linear(width, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(nnx.relu(self.norm(self.hidden(x))))


def variables_of(model: NnxNet) -> Any:
    _, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return {"params": nnx.to_pure_dict(params), "stats": nnx.to_pure_dict(stats)}


def nnx_model(width: int, variables: Any) -> NnxNet:
    template = nnx.eval_shape(lambda: NnxNet(width))
    graph, params, stats = nnx.split(template, nnx.Param, nnx.BatchStat)
    nnx.replace_by_pure_dict(params, variables["params"])
    nnx.replace_by_pure_dict(stats, variables["stats"])
    return nnx.merge(graph, params, stats)


def in_evaluation(width: int) -> Any:
    def apply(variables: Any, x: jax.Array) -> jax.Array:
        model = nnx_model(width, variables)
        model.eval()
        return model(x)

    return apply


@pytest.mark.slow
def test_the_optimizer_of_nnx_goes_on() -> None:
    model = NnxNet(16)
    units = jaxreg.couplings(in_evaluation(16), variables_of(model), X[:4])
    penalty = jaxreg.coupled(L1, units, under="params")
    # The scale and bias of the normalization go with the neuron.
    assert jaxreg.describe(penalty, nnx.state(model, nnx.Param)).rows[0]["leaf"] == (
        "hidden/bias, hidden/kernel, norm/bias, norm/scale, out/kernel"
    )
    tx = jaxreg.target_sparsity(optax.adam(1e-2), penalty, 0.5, 60)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model: NnxNet, optimizer: Any) -> jax.Array:
        loss, grads = nnx.value_and_grad(lambda m: jnp.mean((m(X) - Y) ** 2))(model)
        optimizer.update(model, grads)
        return loss

    for _ in range(80):
        step(model, optimizer)
    small = jaxreg.compact(units, variables_of(model), X[:4])
    width = small.params["params"]["hidden"]["bias"].size
    assert width == 8
    assert small.check(in_evaluation(width), X) < 1e-5
    less = nnx_model(width, small.params)
    new = jaxreg.target_sparsity(
        optax.adam(1e-2),
        jaxreg.coupled(L1, small.couplings, under="params"),
        0.5,
        60,
    )
    going_on = nnx.Optimizer(less, new, wrt=nnx.Param)
    going_on.opt_state = small.carry(
        tx, optimizer.opt_state, under="params", new_optimizer=new
    )
    found = [float(step(less, going_on)) for _ in range(8)]
    goes_on_alike(found, [float(step(model, optimizer)) for _ in range(8)])


@pytest.mark.slow
def test_a_checkpoint_of_a_smaller_model_is_restored(
    tmp_path: Path,
) -> None:
    variables = variables_of(NnxNet(16))
    kernel = variables["params"]["out"]["kernel"]
    variables["params"]["out"]["kernel"] = kernel.at[::2].set(0.0)
    units = jaxreg.couplings(in_evaluation(16), variables, X[:4])
    small = jaxreg.compact(units, variables, X[:4])
    width = small.params["params"]["hidden"]["bias"].size
    assert width == 8
    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(1, args=ocp.args.StandardSave(small.params))
    # Another program knows the width alone.
    target = jax.eval_shape(lambda: variables_of(NnxNet(width)))
    with ocp.CheckpointManager(tmp_path) as manager:
        found = manager.restore(1, args=ocp.args.StandardRestore(target))
    np.testing.assert_allclose(
        in_evaluation(width)(found, X), in_evaluation(16)(variables, X), atol=1e-6
    )


class Mlp(nn.Module):
    """A classifier with hidden layers of these widths."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for width in self.widths:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(10)(x)


@pytest.mark.slow
def test_a_train_state_of_linen_on_digits_goes_on() -> None:
    split = digits(0)
    x, y = jnp.asarray(split.train_x), jnp.asarray(split.train_y)

    @jax.jit
    def step(state: TrainState) -> tuple[TrainState, jax.Array]:
        def loss(params: Any) -> jax.Array:
            logits = state.apply_fn({"params": params}, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        loss_here, grads = jax.value_and_grad(loss)(state.params)
        return state.apply_gradients(grads=grads), loss_here

    model = Mlp((64, 32))
    variables = model.init(jax.random.key(0), x[:2])
    units = jaxreg.couplings(model.apply, variables, x[:2])
    rate = optax.cosine_decay_schedule(3e-3, 500)
    penalty = jaxreg.coupled(L1, units, under="params")
    tx = jaxreg.target_sparsity(optax.adam(rate), penalty, 0.7, 350)
    state = TrainState.create(apply_fn=model.apply, params=variables["params"], tx=tx)
    for _ in range(400):
        state, _ = step(state)
    small = jaxreg.compact(units, {"params": state.params}, x[:2])
    params = small.params["params"]
    widths = tuple(params[f"Dense_{index}"]["bias"].size for index in (0, 1))
    assert sum(widths) <= round(0.3 * 96) + 1
    less = Mlp(widths)
    assert small.check(less.apply, x[:64]) < 1e-5
    new = jaxreg.target_sparsity(
        optax.adam(rate),
        jaxreg.coupled(L1, small.couplings, under="params"),
        0.7,
        350,
    )
    going_on = TrainState(
        step=state.step,
        apply_fn=less.apply,
        params=params,
        tx=new,
        opt_state=small.carry(tx, state.opt_state, under="params", new_optimizer=new),
    )
    found, wanted = [], []
    for _ in range(10):
        going_on, loss = step(going_on)
        found.append(float(loss))
        state, loss = step(state)
        wanted.append(float(loss))
    goes_on_alike(found, wanted)


@pytest.mark.slow
def test_the_state_of_another_part_names_under() -> None:
    params = {"hidden": {"bias": jnp.zeros(4), "kernel": jnp.ones((5, 4))}}
    params |= {"out": jnp.ones((4, 3)).at[:2].set(0.0)}
    units = jaxreg.couplings(one_hidden, params, X[:4])
    small = jaxreg.compact(units, params, X[:4])
    tx = optax.adam(1e-2)
    with pytest.raises(ValueError, match="with under= the path of what it trains"):
        small.carry(tx, tx.init(params["hidden"]))
    state = small.carry(tx, tx.init(params["hidden"]), under="hidden")
    assert state[0].mu["bias"].shape == (2,)
    with pytest.raises(
        ValueError, match=r"under is 'params'.*allowed: 'hidden', 'out'"
    ):
        small.carry(tx, tx.init(params), under="params")
    penalty = jaxreg.coupled(L1, units)
    tx = jaxreg.reweight(lambda p: jaxreg.prox_sgd(0.1, p), penalty, 0.1, 2)
    with pytest.raises(ValueError, match="'penalty_weights/hidden/bias' has shape"):
        small.carry(tx, tx.init(params))
