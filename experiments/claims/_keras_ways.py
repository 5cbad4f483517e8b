"""A Dense layer with L1 on its kernel, trained as Keras does it and as jaxreg does."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import jaxreg
from experiments.kit import training

Step = Callable[[Any, Any], tuple[Any, None]]

KERAS = "Keras, kernel_regularizer"
FORMULAS = "Keras' formulas in JAX"
SAME = "add_penalty_gradient, Keras' epsilon"
OPTAX = "add_penalty_gradient, optax.adam"
OURS = "regularize(optax.adam)"
# Keras' defaults.
_B1, _B2, _EPSILON = 0.9, 0.999, 1e-7


def apply(weights: Any, x: Any) -> Any:
    """Logits of kernel and bias of the hidden layer and of the outputs."""
    kernel, bias, outputs, shifts = weights
    return jnp.maximum(x @ kernel + bias, 0) @ outputs + shifts


_loss = training.cross_entropy(apply)


@functools.partial(jax.jit, static_argnames="way")
def fit(way: str, start: Any, parts: Any, strength: Any, rate: Any) -> list[Any]:
    """The weights after each part of the batches."""
    if way == FORMULAS:
        step, carry = _formulas(start, strength, rate)
    else:
        penalty = jaxreg.by_path([("^0$", jaxreg.L1(strength))])
        step, carry = _chain(start, _optimizer(way, penalty, rate))
    found = []
    for batches in parts:
        carry, _ = jax.lax.scan(step, carry, batches)
        found.append(carry[0])
    return found


def _chain(start: Any, tx: optax.GradientTransformation) -> tuple[Step, Any]:
    def step(carry: Any, batch: Any) -> tuple[Any, None]:
        params, state = carry
        updates, state = tx.update(jax.grad(_loss)(params, *batch), state, params)
        return (optax.apply_updates(params, updates), state), None

    return step, (start, tx.init(start))


def _optimizer(
    way: str, penalty: jaxreg.Penalty, rate: Any
) -> optax.GradientTransformation:
    if way == OURS:
        return jaxreg.regularize(optax.adam(rate), penalty)
    adam = optax.adam(rate, eps=_EPSILON) if way == OPTAX else _keras_adam(rate)
    return optax.chain(jaxreg.add_penalty_gradient(penalty), adam)


def _keras_adam(rate: Any) -> optax.GradientTransformation:
    """Adam with Keras' epsilon: beside the root of v before its bias correction."""

    def epsilon(count: jax.Array) -> jax.Array:
        return _EPSILON / jnp.sqrt(1 - _B2 ** (count + 1.0))

    adam: Callable[..., Any] = optax.inject_hyperparams(optax.scale_by_adam)
    return optax.chain(
        adam(b1=_B1, b2=_B2, eps=epsilon), optax.scale_by_learning_rate(rate)
    )


def _formulas(start: Any, strength: Any, rate: Any) -> tuple[Step, Any]:
    """The penalty in the loss, and Adam as Keras' documentation and source have it."""

    def objective(w: Any, x: Any, y: Any) -> Any:
        return _loss(w, x, y) + strength * jnp.sum(jnp.abs(w[0]))

    def step(carry: Any, batch: Any) -> tuple[Any, None]:
        weights, means, squares, count = carry
        grads = jax.grad(objective)(weights, *batch)
        moved = []
        for w, m, v, g in zip(weights, means, squares, grads, strict=True):
            mean = m + (g - m) * (1 - _B1)
            square = v + (g**2 - v) * (1 - _B2)
            size = rate * jnp.sqrt(1 - _B2**count) / (1 - _B1**count)
            new = w - mean * size / (jnp.sqrt(square) + _EPSILON)
            moved.append((new, mean, square))
        return (*map(list, zip(*moved, strict=True)), count + 1), None

    zeros = [jnp.zeros_like(w) for w in start]
    return step, (list(map(jnp.asarray, start)), zeros, zeros, jnp.ones(()))
