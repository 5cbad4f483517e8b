"""Optimizer steps: every way of applying a penalty, compiled, timed and measured."""

import functools
import itertools
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

import jaxreg
from experiments.kit.transformations import TRANSFORMATIONS, Settings

RATE = 1e-3
BASE = "adamw"
L1, ROWS = jaxreg.L1(1e-4), jaxreg.GroupLasso(1e-4, group_axis=0)
# The matrices of a large model, and their columns.
LEAVES, COLUMNS = 4, 1000
Maker = Callable[[], optax.GradientTransformation]
_ARRAY = re.compile(r"\b[a-z]+(\d+)\w*\[([\d,]*)\]|\bpred\[([\d,]*)\]")
_INSTRUCTION = re.compile(r"^ +(?:ROOT )?%([\w.-]+) = (.+?) ([\w-]+)\((.*?)\)", re.M)
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}


def makers(
    plan: Sequence[tuple[str, str]],
    penalties: Mapping[str, jaxreg.Penalty],
    settings: Settings,
) -> dict[str, Maker]:
    """adamw, then every transformation of each line of the plan with its penalties."""
    ways: dict[str, Maker] = {BASE: lambda: optax.adamw(RATE)}
    for names, labels in plan:
        for penalty, name in itertools.product(labels.split(), names.split()):
            row = TRANSFORMATIONS[name]
            build = functools.partial(row.optimizer, penalties[penalty], settings)
            ways[row.title(penalty)] = build
    return ways


WAYS = makers(
    (
        ("prox_sgd prox_adam", "L1 rows"),
        ("regularize", "L1 rows"),
        ("target_sparsity", "L1"),
        ("shrink", "L1 rows"),
        ("project", "Box L2Ball"),
        ("hold_support", "L1 rows"),
        ("orthant", "L1"),
        ("half_space", "rows"),
        ("add_penalty_gradient dual_average ftrl", "L1"),
    ),
    {
        "L1": L1,
        "rows": ROWS,
        "Box": jaxreg.Box(-1.0, 1.0),
        "L2Ball": jaxreg.L2Ball(10.0),
    },
    Settings(rate=RATE, target=0.9, end_step=100_000),
)


def step_of(tx: optax.GradientTransformation) -> Callable[[Any, Any, Any], Any]:
    """A function from params, state and gradients to the next params and state."""

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


def moved(compiled: Any) -> float:
    """Bytes read and written by an ordinary step, without the cold branches.

    These restart latents after weights were loaded; XLA counts them every time.
    """
    text = compiled.as_text()
    listed = re.findall(r"branch_computations=\{([^}]*)\}", text)
    cold = [name.strip("% ") for names in listed for name in names.split(",")]
    total = compiled.cost_analysis()["bytes accessed"]
    return total - sum(_moved_by(text, name) for name in cold)


def _moved_by(text: str, computation: str) -> float:
    """Bytes of the operands and results of the instructions of a computation."""
    body = re.search(rf"^%{re.escape(computation)} .*?^}}", text, re.DOTALL | re.M)
    assert body is not None
    sizes, total = {}, 0.0
    for name, type_text, operation, operands in _INSTRUCTION.findall(body.group()):
        sizes[name] = sum(
            math.prod(map(int, re.findall(r"\d+", dims or flags))) * int(bits or 8) / 8
            for bits, dims, flags in _ARRAY.findall(type_text)
        )
        if operation not in _FREE:
            names = re.findall(r"%([\w.-]+)", operands)
            total += sizes[name] + sum(sizes.get(operand, 0) for operand in names)
    return total


def large(parameters: int) -> tuple[int, int]:
    """The shape of the matrices of a large model with this many parameters."""
    return parameters // (LEAVES * COLUMNS), COLUMNS


def matrices(shape: tuple[int, int], parameters: int) -> list[jax.Array]:
    """Weights as of a network, in matrices of one shape."""
    keys = jax.random.split(jax.random.key(0), parameters // math.prod(shape))
    return [0.05 * jax.random.normal(key, shape) for key in keys]


def gradients(params: list[jax.Array]) -> list[jax.Array]:
    """Small gradients that do not depend on the entry itself."""
    return [0.01 * leaf[::-1] for leaf in params]


def seconds_of(once: Callable[[], Any], steps: int) -> float:
    """Mean seconds per step over `steps` back-to-back calls."""
    start = time.perf_counter()
    for _ in range(steps):
        result = once()
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / steps


def range_of(ratios: list[float]) -> str:
    """The range as text: `0.98 to 1.15`."""
    return f"{min(ratios):.2f} to {max(ratios):.2f}"


class Run:
    """One compiled step with its own parameters and state, both donated.

    It is compiled `times` times, since the first compilation of a process is slower.
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
        """Mean seconds per step over `steps` back-to-back steps."""

        def once() -> Any:
            self.carry = self.compiled(*self.carry, grads)
            return self.carry

        return seconds_of(once, steps)

    def temporaries(self) -> int:
        """Bytes that the step needs in addition to its inputs and outputs."""
        return self.compiled.memory_analysis().temp_size_in_bytes


def _compiled(
    tx: optax.GradientTransformation, params: Any, state: Any, grads: Any
) -> tuple[float, Any]:
    """The seconds that XLA takes to compile a step, and the step."""

    step = step_of(tx)
    # A fresh name, so that no cache on disk has it.
    step.__name__ = f"step_{time.time_ns()}"
    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(params, state, grads)
    start = time.perf_counter()
    compiled = lowered.compile()
    return time.perf_counter() - start, compiled
