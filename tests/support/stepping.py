"""Jitted training for the tests of the transforms."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import numpy as np
import optax


@cache
def make_step(tx: Any, grads_of: Callable[[Any], Any]) -> Any:
    @jax.jit
    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(grads_of(params), state, params)
        return optax.apply_updates(params, updates), state

    return step


def trajectory(tx: Any, grad: Callable[[Any], Any], start: Any, steps: int) -> Any:
    """The parameters, one array, after each step: a row for each."""

    def step(carry: Any, _: Any) -> Any:
        x, state = carry
        updates, state = tx.update(grad(x), state, x)
        x = optax.apply_updates(x, updates)
        return (x, state), x

    run = jax.jit(lambda carry: jax.lax.scan(step, carry, length=steps)[1])
    return np.asarray(run((start, tx.init(start))))


def answers(tx: Any, grads: Any, start: Any) -> Any:
    """The parameters, one array, before the first and after each given gradient."""

    def step(carry: Any, grad: Any) -> Any:
        x, state = carry
        updates, state = tx.update(grad, state, x)
        x = optax.apply_updates(x, updates)
        return (x, state), x

    run = jax.jit(lambda carry: jax.lax.scan(step, carry, grads)[1])
    return np.concatenate([[start], run((start, tx.init(start)))])
