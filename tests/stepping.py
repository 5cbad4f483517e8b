"""A jitted training step for the tests of the transforms."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import optax


@cache
def make_step(tx: Any, grads_of: Callable[[Any], Any]) -> Any:
    @jax.jit
    def step(params: Any, state: Any) -> Any:
        updates, state = tx.update(grads_of(params), state, params)
        return optax.apply_updates(params, updates), state

    return step
