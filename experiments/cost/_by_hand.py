"""What a few of jaxreg's ways cost when written out for one optimizer and one penalty.

Adam and the prox in plain jax.numpy, without checks, restarts or rules. What XLA makes
of them is what can be had through Optax's interface, in which an update is added to
parameters that it cannot overwrite.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.cost._steps import RATE

STRENGTH, WIDTH = 1e-4, 0.05
Prox = Callable[[jax.Array, float], jax.Array]


def entries(y: jax.Array, threshold: float) -> jax.Array:
    """Soft thresholding."""
    return y - jnp.clip(y, -threshold, threshold)


def row_sizes(y: jax.Array) -> jax.Array:
    """Root mean squares of rows."""
    return jnp.sqrt(jnp.mean(jnp.square(y), axis=1, keepdims=True))


def rows(y: jax.Array, threshold: float) -> jax.Array:
    """Group soft thresholding of rows, the threshold per root mean square."""
    return y * jnp.maximum(0, 1 - threshold / jnp.maximum(row_sizes(y), 1e-30))


def ball(y: jax.Array, radius: float) -> jax.Array:
    """Projection onto the ball of a leaf's Euclidean norm."""
    norm = jnp.sqrt(jnp.sum(jnp.square(y)))
    return y * jnp.minimum(1, radius / jnp.maximum(norm, 1e-30))


def after_adam(prox: Prox, threshold: float) -> optax.GradientTransformation:
    """Adam's step, then the prox, as an update of the parameters."""
    adam = optax.adam(RATE)

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        moves, state = adam.update(grads, state, params)
        return jax.tree.map(
            lambda p, u: prox(p + u, threshold) - p, params, moves
        ), state

    return optax.GradientTransformation(adam.init, update)


def normal_map(
    prox: Prox, outward: Callable[[jax.Array], jax.Array]
) -> optax.GradientTransformation:
    """`regularize(adam)` for one penalty, whose subgradient is strength * outward."""
    adam, step = optax.adam(RATE), WIDTH / STRENGTH

    def init(params: Any) -> Any:
        latent = jax.tree.map(lambda p: p + WIDTH * outward(p), params)
        return latent, adam.init(params)

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        latent, inner = state
        forces = jax.tree.map(
            lambda g, z: g + (z - prox(z, WIDTH)) / step, grads, latent
        )
        moves, inner = adam.update(forces, inner, latent)
        latent = jax.tree.map(jnp.add, latent, moves)
        shown = jax.tree.map(lambda z, p: prox(z, WIDTH) - p, latent, params)
        return shown, (latent, inner)

    return optax.GradientTransformation(init, update)
