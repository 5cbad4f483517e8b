"""One training loop, one step and one update, for all tests that run an optimizer."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

# From params, and the input of the step where there are inputs, to gradients.
Grads = Callable[..., Any]


def train(tx: Any, grads_of: Grads, params: Any, steps: Any, state: Any = None) -> Any:
    """The params and the state after the last step.

    `steps` is a number, or a tree of inputs whose leading axis runs over the steps;
    each step then follows `grads_of(params, input)`. `state` is by default that of
    `tx.init`.
    """
    return _scan(tx, grads_of, params, steps, state, is_stacked=False)[0]


def history(
    tx: Any, grads_of: Grads, params: Any, steps: Any, state: Any = None
) -> Any:
    """The params and the state after every step, stacked; arguments as in `train`."""
    return _scan(tx, grads_of, params, steps, state, is_stacked=True)[1]


def trajectory(tx: Any, grads_of: Grads, start: Any, steps: Any) -> np.ndarray:
    """Params that are one array, after every step: a row for each."""
    return np.asarray(history(tx, grads_of, start, steps)[0])


def answers(tx: Any, grads: Any, start: Any) -> np.ndarray:
    """Params that are one array, before the first and after each given gradient."""
    return np.concatenate([[start], trajectory(tx, _given, jnp.asarray(start), grads)])


def updated(tx: Any, params: Any, grads: Any) -> Any:
    """The params after the first update, from a fresh state."""
    updates, _ = tx.update(grads, tx.init(params), params)
    return optax.apply_updates(params, updates)


@functools.cache
def make_step(tx: Any, grads_of: Grads) -> Any:
    """A jitted step from params and state to both, to be called by hand."""
    return jax.jit(functools.partial(_step, tx, grads_of))


def _given(params: Any, grads: Any) -> Any:
    return grads


def _step(tx: Any, grads_of: Grads, params: Any, state: Any, *inputs: Any) -> Any:
    updates, state = tx.update(grads_of(params, *inputs), state, params)
    return optax.apply_updates(params, updates), state


def _scan(
    tx: Any, grads_of: Grads, params: Any, steps: Any, state: Any, is_stacked: bool
) -> Any:
    params = jax.tree.map(jnp.asarray, params)
    state = tx.init(params) if state is None else state
    length, inputs = (steps, ()) if isinstance(steps, int) else (None, (steps,))
    return _scanned(tx, grads_of, length, is_stacked, (params, state), inputs)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _scanned(
    tx: Any,
    grads_of: Grads,
    length: int | None,
    is_stacked: bool,
    start: Any,
    rest: Any,
) -> Any:
    def step(carry: Any, inputs: Any) -> Any:
        carry = _step(tx, grads_of, *carry, *inputs)
        return carry, carry if is_stacked else None

    return jax.lax.scan(step, start, rest, length=length)
