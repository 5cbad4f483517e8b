"""Steps that can be timed: every way of jaxreg on matrices, compiled and donated."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import jaxreg
from experiments.cost._steps import BASE, L1, RATE, after_adam, step_of

LEAVES, COLUMNS = 4, 1000
ROWS = jaxreg.GroupLasso(1e-4, group_axis=0)

WAYS: dict[str, Callable[[], optax.GradientTransformation]] = {
    BASE: lambda: optax.adamw(RATE),
    "prox_sgd, L1": lambda: jaxreg.prox_sgd(RATE, L1),
    "prox_adam, L1": lambda: jaxreg.prox_adam(RATE, L1),
    "prox_sgd, rows": lambda: jaxreg.prox_sgd(RATE, ROWS),
    "prox_adam, rows": lambda: jaxreg.prox_adam(RATE, ROWS),
    "regularize(adam), L1": lambda: jaxreg.regularize(optax.adam(RATE), L1),
    "regularize(adam), rows": lambda: jaxreg.regularize(optax.adam(RATE), ROWS),
    "target_sparsity(adam), L1": lambda: jaxreg.target_sparsity(
        optax.adam(RATE), L1, 0.9, end_step=100_000
    ),
    "adam, shrink L1": lambda: after_adam(jaxreg.shrink(L1, RATE)),
    "adam, shrink rows": lambda: after_adam(jaxreg.shrink(ROWS, RATE)),
    "adam, project Box": lambda: after_adam(jaxreg.project(jaxreg.Box(-1.0, 1.0))),
    "adam, project L2Ball": lambda: after_adam(jaxreg.project(jaxreg.L2Ball(10.0))),
    "adam, hold_support L1": lambda: after_adam(jaxreg.hold_support(L1)),
    "adam, hold_support rows": lambda: after_adam(jaxreg.hold_support(ROWS)),
    "adam, orthant L1": lambda: after_adam(jaxreg.orthant(L1)),
    "adam, half_space rows": lambda: after_adam(jaxreg.half_space(ROWS)),
    "add_penalty_gradient L1, adam": lambda: optax.chain(
        jaxreg.add_penalty_gradient(L1), optax.adam(RATE)
    ),
    "dual_average, L1": lambda: jaxreg.dual_average(RATE, L1),
    "ftrl, L1": lambda: jaxreg.ftrl(RATE, L1),
}


def large(parameters: int) -> tuple[int, int]:
    """The shape of each of the few matrices of so many parameters."""
    return parameters // (LEAVES * COLUMNS), COLUMNS


def matrices(shape: tuple[int, int], parameters: int) -> list[jax.Array]:
    """As many weights of a network, in matrices of one shape."""
    keys = jax.random.split(jax.random.key(0), parameters // math.prod(shape))
    return [0.05 * jax.random.normal(key, shape) for key in keys]


def gradients(params: list[jax.Array]) -> list[jax.Array]:
    """Small, and no function of the entry they stand beside."""
    return [0.01 * leaf[::-1] for leaf in params]


def seconds_of(once: Callable[[], Any], steps: int) -> float:
    """Of so many steps, one after another without waiting, the time of each."""
    start = time.perf_counter()
    for _ in range(steps):
        result = once()
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / steps


def range_of(ratios: list[float]) -> str:
    """The least and the largest, as a verdict says them."""
    return f"{min(ratios):.2f} to {max(ratios):.2f}"


class Run:
    """One compiled step with its own parameters and state, both donated.

    It is compiled a few times, since the first of a process also wakes the compiler up.
    """

    def __init__(
        self, tx: optax.GradientTransformation, params: Any, grads: Any, times: int = 1
    ):
        params = [jnp.copy(leaf) for leaf in params]
        self.carry = (params, tx.init(params))
        pairs = [_compiled(tx, *self.carry, grads) for _ in range(times)]
        self.compiling = min(seconds for seconds, _ in pairs)
        self.compiled = pairs[-1][1]

    def seconds(self, grads: Any, steps: int = 1) -> float:
        """Of so many steps, the time of each."""

        def once() -> Any:
            self.carry = self.compiled(*self.carry, grads)
            return self.carry

        return seconds_of(once, steps)

    def temporaries(self) -> int:
        """Bytes that the step needs beside its inputs and outputs."""
        return self.compiled.memory_analysis().temp_size_in_bytes


def _compiled(
    tx: optax.GradientTransformation, params: Any, state: Any, grads: Any
) -> tuple[float, Any]:
    """What XLA needs for a step, in seconds, and the step."""

    step = step_of(tx)
    # A name of its own, so that no cache on disk has it.
    step.__name__ = f"step_{time.time_ns()}"
    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, grads)
    start = time.perf_counter()
    compiled = lowered.compile()
    return time.perf_counter() - start, compiled
