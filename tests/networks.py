"""Small networks of Flax NNX and of Linen, alike in both, with data and rules."""

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
from jaxreg import rules

WIDTH, LAYERS, HEADS, WORDS, UNUSED = 8, 3, 2, 8, 2

_rng = np.random.default_rng(0)
VECTORS = jnp.asarray(_rng.normal(size=(64, WIDTH)), "f4")
IMAGES = jnp.asarray(_rng.normal(size=(16, 6, 6, 2)), "f4")
TOKENS = jnp.asarray(_rng.integers(UNUSED, WORDS, size=(32, 5)))


class NnxMlp(nnx.Module):
    """Two layers, named by attributes."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(WIDTH, 16, rngs=rngs)
        self.second = nnx.Linear(16, 1, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return self.second(nnx.relu(self.first(x)))


class LinenMlp(nn.Module):
    """The same two layers."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.Dense(1, name="second")(nn.relu(nn.Dense(16, name="first")(x)))


class NnxConvNet(nnx.Module):
    """Two convolutions with batch statistics, then a dense layer."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(2, WIDTH, (3, 3), use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(WIDTH, rngs=rngs)
        self.narrow = nnx.Conv(WIDTH, 4, (3, 3), strides=2, rngs=rngs)
        self.dense = nnx.Linear(36, 1, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = nnx.relu(self.norm(self.conv(x)))
        return self.dense(nnx.relu(self.narrow(x)).reshape(len(x), -1))


class LinenConvNet(nn.Module):
    """The same."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.Conv(WIDTH, (3, 3), use_bias=False, name="conv")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=False, name="norm")(x))
        x = nn.relu(nn.Conv(4, (3, 3), strides=2, name="narrow")(x))
        return nn.Dense(1, name="dense")(x.reshape(len(x), -1))


class NnxResidualBlock(nnx.Module):
    """What two convolutions add to their input."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.widen = nnx.Conv(4, WIDTH, (3, 3), rngs=rngs)
        self.narrow = nnx.Conv(WIDTH, 4, (3, 3), rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return x + self.narrow(nnx.relu(self.widen(self.norm(x))))


class NnxResidualNet(nnx.Module):
    """Two residual blocks in a list."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.stem = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.blocks = nnx.List([NnxResidualBlock(rngs) for _ in range(2)])
        self.dense = nnx.Linear(4, 1, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.dense(nnx.relu(x).mean((1, 2)))


class LinenResidualBlock(nn.Module):
    """The same."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        y = nn.BatchNorm(use_running_average=False, name="norm")(x)
        y = nn.relu(nn.Conv(WIDTH, (3, 3), name="widen")(y))
        return x + nn.Conv(4, (3, 3), name="narrow")(y)


class LinenResidualNet(nn.Module):
    """The same; Linen names the list's blocks `blocks_0`, `blocks_1`."""

    def setup(self) -> None:
        self.stem = nn.Conv(4, (3, 3))
        self.blocks = [LinenResidualBlock() for _ in range(2)]
        self.dense = nn.Dense(1)

    def __call__(self, x: Any) -> Any:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.dense(nn.relu(x).mean((1, 2)))


class NnxTransformer(nnx.Module):
    """Embeddings and one block of attention and an MLP."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.embed = nnx.Embed(WORDS, WIDTH, rngs=rngs)
        self.norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            HEADS, WIDTH, WIDTH, decode=False, rngs=rngs
        )
        self.mlp_norm = nnx.LayerNorm(WIDTH, rngs=rngs)
        self.mlp_up = nnx.Linear(WIDTH, 16, rngs=rngs)
        self.mlp_down = nnx.Linear(16, WIDTH, rngs=rngs)
        self.answer = nnx.Linear(WIDTH, 1, rngs=rngs)

    def __call__(self, tokens: Any) -> Any:
        x = self.embed(tokens)
        x = x + self.attention(self.norm(x))
        x = x + self.mlp_down(nnx.relu(self.mlp_up(self.mlp_norm(x))))
        return self.answer(x.mean(1))


class LinenTransformer(nn.Module):
    """The same."""

    @nn.compact
    def __call__(self, tokens: Any) -> Any:
        x = nn.Embed(WORDS, WIDTH, name="embed")(tokens)
        attention = nn.MultiHeadDotProductAttention(HEADS, name="attention")
        x = x + attention(nn.LayerNorm(name="norm")(x))
        y = nn.Dense(16, name="mlp_up")(nn.LayerNorm(name="mlp_norm")(x))
        x = x + nn.Dense(WIDTH, name="mlp_down")(nn.relu(y))
        return nn.Dense(1, name="answer")(x.mean(1))


class NnxLayer(nnx.Module):
    """One of the layers that are stacked."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.up = nnx.Linear(WIDTH, 16, rngs=rngs)
        self.down = nnx.Linear(16, WIDTH, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        return x + self.down(nnx.relu(self.up(x)))


class NnxStack(nnx.Module):
    """Equal layers whose kernels `nnx.vmap` stacks and `nnx.scan` runs through."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        @nnx.split_rngs(splits=LAYERS)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def stacked(rngs: nnx.Rngs) -> NnxLayer:
            return NnxLayer(rngs)

        self.layers = stacked(rngs)
        self.answer = nnx.Linear(WIDTH, 1, rngs=rngs)

    def __call__(self, x: Any) -> Any:
        @nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        def run(x: Any, layer: NnxLayer) -> Any:
            return layer(x)

        return self.answer(run(x, self.layers))


class LinenLayer(nn.Module):
    """The same."""

    @nn.compact
    def __call__(self, x: Any, _: None) -> Any:
        y = nn.relu(nn.Dense(16, name="up")(x))
        return x + nn.Dense(WIDTH, name="down")(y), None


class LinenStack(nn.Module):
    """The same by `nn.scan`."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        scanned = nn.scan(
            LinenLayer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=LAYERS,
        )
        x, _ = scanned(name="layers")(x, None)
        return nn.Dense(1, name="answer")(x)


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
    """What a training left: parameters and statistics by path, and the losses."""

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
