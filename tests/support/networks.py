"""Networks of Flax NNX and of Linen with data and rules, and how they train."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState

import jaxreg
from jaxreg.rules import by_path as rules
from tests.support.network_models import (
    HEADS,
    LAYERS,
    UNUSED,
    WIDTH,
    WORDS,
    LinenConvNet,
    LinenMlp,
    LinenResidualNet,
    LinenStack,
    LinenTransformer,
    NnxConvNet,
    NnxMlp,
    NnxResidualNet,
    NnxStack,
    NnxTransformer,
)

_rng = np.random.default_rng(0)
VECTORS = jnp.asarray(_rng.normal(size=(64, WIDTH)), "f4")
IMAGES = jnp.asarray(_rng.normal(size=(16, 6, 6, 2)), "f4")
TOKENS = jnp.asarray(_rng.integers(UNUSED, WORDS, size=(32, 5)))


@dataclasses.dataclass(frozen=True)
class Network:
    """One network in both frameworks, data, and rules.

    `groups` says what the rules catch, by path, and in how many groups; None where each
    entry stands alone.
    """

    in_nnx: Callable[[nnx.Rngs], Any]
    in_linen: nn.Module
    inputs: Any
    answers: Any
    penalty: Any
    groups: dict[str, int | None]


def entries(strength: float) -> tuple[str, jaxreg.Penalty]:
    return "kernel$", jaxreg.L1(strength)


VECTOR_ANSWERS = jnp.sin(2 * VECTORS[:, :1]) + VECTORS[:, 1:2]
IMAGE_ANSWERS = IMAGES[:, 2:4, 2:4, 0].mean((1, 2))[:, None] * 4

NETWORKS = {
    "mlp": Network(
        NnxMlp,
        LinenMlp(),
        VECTORS,
        VECTOR_ANSWERS,
        jaxreg.by_path(
            [jaxreg.input_features(jaxreg.L1(4e-2), layers="^first$"), entries(2e-2)]
        ),
        {"first/kernel": WIDTH, "second/kernel": None},
    ),
    "conv net": Network(
        NnxConvNet,
        LinenConvNet(),
        IMAGES,
        IMAGE_ANSWERS,
        jaxreg.by_path(
            [
                jaxreg.filters(jaxreg.L1(1e-1), layers="^conv$"),
                jaxreg.input_features(jaxreg.L1(3e-2), layers="^narrow$", spatial=2),
                entries(5e-3),
            ]
        ),
        {"conv/kernel": WIDTH, "narrow/kernel": WIDTH, "dense/kernel": None},
    ),
    "residual net": Network(
        NnxResidualNet,
        LinenResidualNet(),
        IMAGES,
        IMAGE_ANSWERS,
        jaxreg.by_path(
            [jaxreg.filters(jaxreg.L1(1e-2), layers="widen$"), entries(2e-3)]
        ),
        {
            "stem/kernel": None,
            "blocks/0/widen/kernel": WIDTH,
            "blocks/0/narrow/kernel": None,
            "blocks/1/widen/kernel": WIDTH,
            "blocks/1/narrow/kernel": None,
            "dense/kernel": None,
        },
    ),
    "transformer": Network(
        NnxTransformer,
        LinenTransformer(),
        TOKENS,
        jnp.sum(TOKENS == WORDS - 1, axis=1, keepdims=True) - 1.0,
        jaxreg.by_path(
            [
                jaxreg.heads(jaxreg.L1(5e-3)),
                jaxreg.neurons(jaxreg.L1(1e-2), layers="^mlp_up$"),
                ("embedding$", jaxreg.GroupLasso(1e-3, group_axis=0)),
                entries(2e-3),
            ]
        ),
        {
            "attention/query/kernel": HEADS,
            "attention/key/kernel": HEADS,
            "attention/value/kernel": HEADS,
            "attention/out/kernel": HEADS,
            "mlp_up/kernel": 16,
            "embed/embedding": WORDS,
            "mlp_down/kernel": None,
            "answer/kernel": None,
        },
    ),
    "stack": Network(
        NnxStack,
        LinenStack(),
        VECTORS,
        VECTOR_ANSWERS,
        jaxreg.by_path(
            [
                jaxreg.neurons(jaxreg.L1(1e-2), layers="/up$", stacked=1),
                entries(5e-3),
            ]
        ),
        {
            "layers/up/kernel": LAYERS * 16,
            "layers/down/kernel": None,
            "answer/kernel": None,
        },
    ),
}


class Run(NamedTuple):
    """The result of a training: parameters and statistics by path, and the losses."""

    params: dict[str, np.ndarray]
    statistics: dict[str, np.ndarray]
    losses: np.ndarray


def by_path_of(tree: Any) -> dict[str, np.ndarray]:
    # Linen names the items of a list `blocks_0`, NNX gives them a level of their own.
    names = [re.sub(r"_(?=\d)", "/", name) for name in rules.paths(tree)]
    return dict(zip(names, map(np.asarray, jax.tree.leaves(tree)), strict=True))


def mean_square(network: Network, answers: Any) -> Any:
    return jnp.mean((answers - network.answers) ** 2)


def pieces(network: Network, framework: str) -> tuple[Any, Any, Any]:
    """Parameters, statistics, and `loss(params, statistics)`, which also returns new.

    Both trees are plain dicts of arrays.
    """
    if framework == "linen":
        model = network.in_linen
        variables = dict(model.init(jax.random.key(0), network.inputs))

        def linen_loss(params: Any, rest: Any) -> Any:
            variables = {"params": params, **rest}
            answers, rest = model.apply(variables, network.inputs, mutable=list(rest))
            return mean_square(network, answers), rest

        return variables.pop("params"), variables, linen_loss
    definition, params, rest = nnx.split(network.in_nnx(nnx.Rngs(0)), nnx.Param, ...)
    treedef = jax.tree.structure(params)

    def nnx_loss(params: Any, rest: Any) -> Any:
        state = jax.tree.unflatten(treedef, jax.tree.leaves(params))
        model = nnx.merge(definition, state, rest, copy=True)
        value = mean_square(network, model(network.inputs))
        return value, nnx.state(model, nnx.Not(nnx.Param))

    return nnx.to_pure_dict(params), rest, nnx_loss


def train_plainly(network: Network, framework: str, tx: Any, steps: int) -> Run:
    params, rest, loss = pieces(network, framework)

    def step(carry: Any, _: None) -> Any:
        params, rest, state = carry
        (value, rest), grads = jax.value_and_grad(loss, has_aux=True)(params, rest)
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), rest, state), value

    run = jax.jit(lambda carry: jax.lax.scan(step, carry, length=steps))
    (params, rest, _), losses = run((params, rest, tx.init(params)))
    return Run(by_path_of(params), by_path_of(rest), np.asarray(losses))


def train_by_framework(network: Network, framework: str, tx: Any, steps: int) -> Run:
    """By `nnx.Optimizer`, or by Linen's `TrainState`."""
    train = train_nnx if framework == "nnx" else train_linen
    return train(network, tx, steps)


def train_nnx(network: Network, tx: Any, steps: int) -> Run:
    model = network.in_nnx(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def step(model: Any, optimizer: Any) -> Any:
        def loss(model: Any) -> Any:
            return mean_square(network, model(network.inputs))

        value, grads = nnx.value_and_grad(loss)(model)
        optimizer.update(model, grads)
        return value

    losses = np.array([step(model, optimizer) for _ in range(steps)])
    _, params, rest = nnx.split(model, nnx.Param, ...)
    return Run(by_path_of(params), by_path_of(rest), losses)


def train_linen(network: Network, tx: Any, steps: int) -> Run:
    params, rest, loss = pieces(network, "linen")
    state = TrainState.create(apply_fn=network.in_linen.apply, params=params, tx=tx)

    @jax.jit
    def step(state: Any, rest: Any) -> Any:
        gradient = jax.value_and_grad(loss, has_aux=True)
        (value, rest), grads = gradient(state.params, rest)
        return state.apply_gradients(grads=grads), rest, value

    losses = []
    for _ in range(steps):
        state, rest, value = step(state, rest)
        losses.append(value)
    return Run(by_path_of(state.params), by_path_of(rest), np.array(losses))
