"""Flax models of the experiments."""

from __future__ import annotations

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


def init_mlp(
    sizes: tuple[int, ...], key: jax.Array
) -> tuple[Any, Callable[[Any, Any], jax.Array]]:
    """The parameters of a fresh MLP, and the function of them and the inputs."""
    graph, params = nnx.split(MLP(sizes, rngs=nnx.Rngs(params=key)))

    def apply(params: Any, x: Any) -> jax.Array:
        return nnx.merge(graph, params)(x)

    return params, apply
