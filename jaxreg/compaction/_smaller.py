"""Evaluates the equations of a trace at the sizes that are left after a removal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxreg.compaction._jaxpr import Equation, Literal, Operand, Program, Variable
from jaxreg.compaction._terms import Atom, Axes, Term, mask_along
from jaxreg.compaction._trace import Traced


class Smaller:
    """The program of a trace where `masks` say which units of each atom stay.

    Parameters of equations that hold sizes are computed from the terms. Every output is
    compared with the shape that its terms say.
    """

    def __init__(self, traced: Traced, masks: Mapping[Atom, Sequence[bool]]) -> None:
        self._traced, self._masks = traced, masks

    def __call__(self, *arrays: Any) -> list[Any]:
        return self._run(self._traced.program, arrays)

    def _count(self, term: Term, before: int | None = None) -> int:
        """The positions along an axis that stay, of those before a position."""
        return sum(mask_along(term, self._masks)[:before])

    def _shape(self, operand: Operand) -> tuple[int, ...]:
        return tuple(map(self._count, self._traced.axes_of(operand)))

    def _run(self, program: Program, arrays: Sequence[Any]) -> list[Any]:
        values: dict[Variable, Any] = dict(program.constants)
        values.update(zip(program.inputs, arrays, strict=True))

        def read(operand: Operand) -> Any:
            if isinstance(operand, Literal):
                return operand.value
            return values[operand]

        for eqn in program.equations:
            outputs = self._outputs(eqn, list(map(read, eqn.inputs)))
            for variable, output in zip(eqn.outputs, outputs, strict=True):
                expected = self._shape(variable)
                assert jnp.shape(output) == expected, (eqn.where, expected)
                values[variable] = output
        return list(map(read, program.outputs))

    def _outputs(self, eqn: Equation, operands: list[Any]) -> Sequence[Any]:
        loops = {"scan": self._scan, "while": self._while, "cond": self._cond}
        if eqn.name in loops:
            return loops[eqn.name](eqn, operands)
        is_resized = any(
            jnp.shape(each) != operand.shape
            for each, operand in zip(operands, eqn.inputs, strict=True)
        )
        if eqn.name == "sharding_constraint" and is_resized:
            # The smaller length may not divide by the devices of its mesh axis.
            return operands
        return eqn.bind(*operands, **self._sizes(eqn, operands))

    def _sizes(self, eqn: Equation, operands: list[Any]) -> dict[str, Any]:
        """The parameters of an equation that depend on sizes."""
        params, name = eqn.params, eqn.name
        if name in ("broadcast_in_dim", "iota"):
            return {"shape": self._shape(eqn.outputs[0])}
        if name == "reshape":
            return {"new_sizes": self._shape(eqn.outputs[0])}
        if name == "split":
            axis = params["axis"]
            return {"sizes": tuple(self._shape(each)[axis] for each in eqn.outputs)}
        axes: Axes = self._traced.axes_of(eqn.inputs[0]) if eqn.inputs else []
        if name == "slice":
            bounds = {key: params[key] for key in ("start_indices", "limit_indices")}
            return {
                key: tuple(map(self._count, axes, places))
                for key, places in bounds.items()
            }
        if name == "tile":
            lengths = zip(self._shape(eqn.outputs[0]), operands[0].shape, strict=True)
            return {"reps": tuple(new // old for new, old in lengths)}
        if name in ("gather", "dynamic_slice"):
            pairs = zip(axes, params["slice_sizes"], strict=True)
            sizes = [self._count(t) if n == t.size else n for t, n in pairs]
            return {"slice_sizes": tuple(sizes)}
        if name == "conv_general_dilated":
            numbers = params["dimension_numbers"]
            features = operands[0].shape[numbers.lhs_spec[1]]
            inner = operands[1].shape[numbers.rhs_spec[1]]
            return {"feature_group_count": features // inner}
        return {}

    def _scan(self, eqn: Equation, operands: list[Any]) -> Sequence[Any]:
        (body,) = eqn.bodies
        constants, carried = eqn.scan_counts
        start = constants + carried

        def step(carry: list[Any], slices: list[Any]) -> tuple[list[Any], list[Any]]:
            outputs = self._run(body, [*operands[:constants], *carry, *slices])
            return outputs[:carried], outputs[carried:]

        names = ("length", "reverse", "unroll")
        options = {name: eqn.params[name] for name in names}
        carry = operands[constants:start]
        carry, ys = jax.lax.scan(step, carry, operands[start:], **options)
        return [*carry, *ys]

    def _while(self, eqn: Equation, operands: list[Any]) -> Sequence[Any]:
        condition, body = eqn.bodies
        first = eqn.params["cond_nconsts"]
        start = first + eqn.params["body_nconsts"]
        return jax.lax.while_loop(
            lambda carry: self._run(condition, [*operands[:first], *carry])[0],
            lambda carry: self._run(body, [*operands[first:start], *carry]),
            operands[start:],
        )

    def _cond(self, eqn: Equation, operands: list[Any]) -> Sequence[Any]:
        def branch(body: Program) -> Any:
            return lambda *arrays: self._run(body, arrays)

        index = jnp.asarray(operands[0], "int32")
        return jax.lax.switch(index, list(map(branch, eqn.bodies)), *operands[1:])
