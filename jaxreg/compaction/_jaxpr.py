"""A traced function as a flat list of equations.

Calls (`jit`, `checkpoint`, custom derivatives) are inlined; loops and branches hold
programs of their own. JAX's private names, and differences between its versions, are
in this file alone.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax._src import source_info_util
from jax.extend import core


@dataclasses.dataclass(frozen=True, eq=False)
class Variable:
    """A value of a program; each is assigned once."""

    shape: tuple[int, ...]
    dtype: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Literal:
    """A number, or in rare cases an array, written into an equation."""

    value: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return jnp.shape(self.value)


Operand = Variable | Literal


@dataclasses.dataclass(eq=False)
class Equation:
    """The application of a primitive; loops and branches have `bodies`."""

    primitive: core.Primitive
    params: Mapping[str, Any]
    inputs: tuple[Operand, ...]
    outputs: tuple[Variable, ...]
    bodies: tuple[Program, ...]
    source: Any

    @property
    def name(self) -> str:
        return self.primitive.name

    @functools.cached_property
    def where(self) -> str:
        """The primitive with file and line of the call in the user's code."""
        frame = source_info_util.user_frame(self.source.traceback)
        if frame is None:
            return self.name
        file = frame.file_name.rpartition("/")[2]
        return f"{self.name} at {file}:{frame.start_line}"

    def bind(self, *operands: Any, **changed: Any) -> list[Any]:
        """The outputs for other operands, with some parameters changed."""
        out = self.primitive.bind(*operands, **{**self.params, **changed})
        return list(out) if self.primitive.multiple_results else [out]

    @property
    def scan_counts(self) -> tuple[int, int]:
        """How many operands of a scan are constants, and how many are carried."""
        (body,) = self.bodies
        carried = sum(
            len(inner.shape) == len(outer.shape)
            for inner, outer in zip(body.outputs, self.outputs, strict=True)
        )
        whole = sum(
            len(inner.shape) == len(outer.shape)
            for inner, outer in zip(body.inputs, self.inputs, strict=True)
        )
        return whole - carried, carried


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """Equations in order; `constants` are arrays that the function captured."""

    inputs: tuple[Variable, ...]
    outputs: tuple[Operand, ...]
    equations: tuple[Equation, ...]
    constants: Mapping[Variable, Any]


# By primitive, the parameter that holds the function which it calls.
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}
_BODIES: dict[str, Callable[[Mapping[str, Any]], Sequence[Any]]] = {
    "scan": lambda params: [params["jaxpr"]],
    "while": lambda params: [params["cond_jaxpr"], params["body_jaxpr"]],
    "cond": lambda params: params["branches"],
}


def trace(
    function: Callable[..., Any], *arguments: Any
) -> tuple[Program, jax.tree_util.PyTreeDef]:
    """The program of a function of pytrees, and the structure of its output.

    Arguments may be shapes.
    """
    jaxpr, output = jax.make_jaxpr(function, return_shape=True)(*arguments)
    return _flattened(jaxpr), jax.tree.structure(output)


def _flattened(jaxpr: Any) -> Program:
    inner, constants = _opened(jaxpr)
    inputs = tuple(map(_variable, inner.invars))
    equations: list[Equation] = []
    captured: dict[Variable, Any] = {}
    outputs = _inline(inner, constants, inputs, equations, captured)
    return Program(inputs, tuple(outputs), tuple(equations), captured)


def _opened(jaxpr: Any) -> tuple[Any, Sequence[Any]]:
    """A jaxpr and its constants, of a closed or an open one."""
    is_closed = isinstance(jaxpr, core.ClosedJaxpr)
    return (jaxpr.jaxpr, jaxpr.consts) if is_closed else (jaxpr, [])


def _variable(var: Any) -> Variable:
    return Variable(var.aval.shape, var.aval.dtype)


def _inline(
    jaxpr: Any,
    constants: Sequence[Any],
    inputs: Sequence[Operand],
    equations: list[Equation],
    captured: dict[Variable, Any],
) -> list[Operand]:
    """Appends the equations of a jaxpr; its outputs."""
    env: dict[Any, Operand] = dict(zip(jaxpr.invars, inputs, strict=True))
    for var, constant in zip(jaxpr.constvars, constants, strict=True):
        env[var] = variable = _variable(var)
        captured[variable] = constant

    def read(var: Any) -> Operand:
        return Literal(var.val) if isinstance(var, core.Literal) else env[var]

    for eqn in jaxpr.eqns:
        name, params = eqn.primitive.name, eqn.params
        operands = tuple(map(read, eqn.invars))
        if name in _CALLS:
            inner, consts = _opened(params[_CALLS[name]])
            outputs = _inline(inner, consts, operands, equations, captured)
        else:
            bodies = tuple(map(_flattened, _BODIES.get(name, lambda _: [])(params)))
            made = tuple(map(_variable, eqn.outvars))
            source = eqn.source_info
            equations.append(
                Equation(eqn.primitive, params, operands, made, bodies, source)
            )
            outputs = list(made)
        env.update(zip(eqn.outvars, outputs, strict=True))
    return list(map(read, jaxpr.outvars))
