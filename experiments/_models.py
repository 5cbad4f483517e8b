"""Flax models of the experiments."""

from __future__ import annotations

import itertools

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
