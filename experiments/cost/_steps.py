"""An optimizer step as XLA compiles it, and what it moves."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import optax

import jaxreg

RATE = 1e-3
BASE = "adamw"
L1 = jaxreg.L1(1e-4)
_ARRAY = re.compile(r"\b[a-z]+(\d+)\w*\[([\d,]*)\]|\bpred\[([\d,]*)\]")
_INSTRUCTION = re.compile(r"^ +(?:ROOT )?%([\w.-]+) = (.+?) ([\w-]+)\((.*?)\)", re.M)
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}


def after_adam(last: Any) -> optax.GradientTransformation:
    """Adam, and what comes behind it."""
    return optax.chain(optax.adam(RATE), last)


def step_of(tx: optax.GradientTransformation) -> Callable[[Any, Any, Any], Any]:
    """Takes params, state and gradients to the next params and state."""

    def step(params: Any, state: Any, grads: Any) -> Any:
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


def moved(compiled: Any) -> float:
    """The bytes that a common step reads and writes, without the cold branches.

    These restart latents after weights were loaded; XLA counts them every time.
    """
    text = compiled.as_text()
    listed = re.findall(r"branch_computations=\{([^}]*)\}", text)
    cold = [name.strip("% ") for names in listed for name in names.split(",")]
    total = compiled.cost_analysis()["bytes accessed"]
    return total - sum(_moved_by(text, name) for name in cold)


def _moved_by(text: str, computation: str) -> float:
    """Operands and results of the instructions of one computation."""
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
