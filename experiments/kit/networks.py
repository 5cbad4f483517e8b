"""Flax models of the experiments."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
from flax import nnx


class MLP(nnx.Module):
    """Dense layers with ReLU between them; `sizes` from the inputs to the classes."""

    def __init__(self, sizes: tuple[int, ...], *, rngs: nnx.Rngs):
        self.layers = nnx.List(
            nnx.Linear(inputs, outputs, rngs=rngs)
            for inputs, outputs in itertools.pairwise(sizes)
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of shape (samples, classes)."""
        for layer in self.layers[:-1]:
            x = nnx.relu(layer(x))
        return self.layers[-1](x)


class CNN(nnx.Module):
    """Two 3x3 convolutions, the second of stride 2, and a dense layer of classes."""

    def __init__(
        self, side: int, filters: tuple[int, int], classes: int, *, rngs: nnx.Rngs
    ):
        first, second = filters
        self.side = side
        self.convs = nnx.List(
            [
                nnx.Conv(1, first, (3, 3), rngs=rngs),
                nnx.Conv(first, second, (3, 3), strides=2, rngs=rngs),
            ]
        )
        pixels = (-(-side // 2)) ** 2
        self.out = nnx.Linear(pixels * second, classes, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits of shape (samples, classes), of flat square images."""
        x = x.reshape(-1, self.side, self.side, 1)
        for conv in self.convs:
            x = nnx.relu(conv(x))
        return self.out(x.reshape(len(x), -1))


def init_mlp(
    sizes: tuple[int, ...], key: jax.Array
) -> tuple[Any, Callable[[Any, Any], jax.Array]]:
    """The parameters of a fresh MLP, and the function of them and the inputs."""
    return _split(MLP(sizes, rngs=nnx.Rngs(params=key)))


def init_cnn(
    side: int, filters: tuple[int, int], classes: int, key: jax.Array
) -> tuple[Any, Callable[[Any, Any], jax.Array]]:
    """The parameters of a fresh CNN, and the function of them and the inputs."""
    return _split(CNN(side, filters, classes, rngs=nnx.Rngs(params=key)))


def _split(model: nnx.Module) -> tuple[Any, Callable[[Any, Any], jax.Array]]:
    graph, params = nnx.split(model)

    def apply(params: Any, x: Any) -> jax.Array:
        return nnx.merge(graph, params)(x)

    return params, apply
