"""Activations and readers: what depends on the inputs, which leaves' axes are summed.

A leaf reads the units of a dimension where the model contracts the leaf's axis, and
makes them where the axis goes on into an activation.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxreg.compaction._jaxpr import Equation, Operand, Program, Variable
from jaxreg.compaction._rules import EACH_ALONE, blocks

LeafAxis = tuple[int, int]
"""Index of a leaf, and one of its axes."""
_Axes = list[frozenset[LeafAxis]]
"""Per axis of a variable, the axes of leaves that it comes from."""


def activations_of(
    program: Program, inputs: Sequence[Variable], into: set[Variable] | None = None
) -> set[Variable]:
    """The variables that depend on `inputs`, those of inner programs included."""
    out = set[Variable]() if into is None else into
    out.update(inputs)
    for eqn in program.equations:
        if out.isdisjoint(eqn.inputs):
            continue
        out.update(eqn.outputs)
        for body, operands in _bodies(eqn):
            _activate_body(eqn, body, operands, out)
    return out


def _activate_body(
    eqn: Equation, body: Program, operands: Sequence[Operand], out: set[Variable]
) -> None:
    """Activates variables of a body until what it carries round adds none."""
    active = [
        inner
        for inner, outer in zip(body.inputs, operands, strict=True)
        if outer in out
    ]
    start, carried = _carry(eqn, body)
    carry = list(
        zip(body.inputs[start : start + carried], body.outputs[:carried], strict=True)
    )
    count = -1
    while count != len(out):
        count = len(out)
        activations_of(body, active, out)
        active += [first for first, last in carry if last in out]


def _carry(eqn: Equation, body: Program) -> tuple[int, int]:
    """The first carried input of a loop's body, and the number of carried ones."""
    if eqn.name == "scan":
        return eqn.scan_counts
    if eqn.name == "while" and body is eqn.bodies[1]:
        return eqn.params["body_nconsts"], len(body.outputs)
    return 0, 0


def _bodies(eqn: Equation) -> list[tuple[Program, Sequence[Operand]]]:
    """The bodies of a loop or of branches, each with the operands that it gets."""
    if eqn.name == "while":
        condition, body = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
        carry = eqn.inputs[condition + body :]
        operands = eqn.inputs[condition : condition + body]
        return [
            (eqn.bodies[1], (*operands, *carry)),
            (eqn.bodies[0], (*eqn.inputs[:condition], *carry)),
        ]
    inputs = eqn.inputs[1:] if eqn.name == "cond" else eqn.inputs
    return [(body, inputs) for body in eqn.bodies]


class Readers:
    """The axes of leaves that are contracted, and those that go on."""

    def __init__(self, program: Program, leaves: int, activations: set[Variable]):
        self.activations = activations
        self.contracted: set[LeafAxis] = set()
        self.going_on: set[LeafAxis] = set()
        self._axes: dict[Operand, _Axes] = {
            variable: [frozenset({(leaf, axis)}) for axis in range(len(variable.shape))]
            for leaf, variable in enumerate(program.inputs[:leaves])
        }
        self._run(program)

    def is_contracted(self, leaf: int, axis: int) -> bool:
        """True if the model sums over the axis wherever it uses it."""
        return (leaf, axis) in self.contracted - self.going_on

    def _of(self, operand: Operand) -> _Axes:
        return self._axes.get(operand) or [frozenset()] * len(operand.shape)

    def _run(self, program: Program) -> None:
        for eqn in program.equations:
            if not any(operand in self._axes for operand in eqn.inputs):
                continue
            for operand, gone in zip(eqn.inputs, _contracted_axes(eqn), strict=False):
                axes = self._of(operand)
                for axis in gone:
                    self.contracted |= axes[axis]
            if eqn.bodies:
                self._enter(eqn)
            elif self.activations.isdisjoint(eqn.outputs):
                self._pass_on(eqn)
            else:
                self._end(eqn)

    def _end(self, eqn: Equation) -> None:
        """Axes that are not contracted here go on into an activation."""
        for operand, gone in zip(eqn.inputs, _contracted_axes(eqn), strict=False):
            for axis, leaf_axes in enumerate(self._of(operand)):
                if axis not in gone:
                    self.going_on |= leaf_axes

    def _enter(self, eqn: Equation) -> None:
        for body, operands in _bodies(eqn):
            for inner, outer in zip(body.inputs, operands, strict=True):
                if outer in self._axes:
                    # A scan takes slices along axis 0 of what it does not carry.
                    layers = len(outer.shape) - len(inner.shape)
                    self._axes[inner] = self._of(outer)[layers:]
            self._run(body)

    def _pass_on(self, eqn: Equation) -> None:
        if eqn.name in EACH_ALONE:
            for operand, output in zip(eqn.inputs, eqn.outputs, strict=True):
                self._axes[output] = self._of(operand)
        else:
            self._axes.update(dict.fromkeys(eqn.outputs, self._passed(eqn)))

    def _passed(self, eqn: Equation) -> _Axes:
        """Per axis of the first output, the axes of leaves that it comes from."""
        operands = list(map(self._of, eqn.inputs))
        ndim, params = len(eqn.outputs[0].shape), eqn.params
        none = [frozenset[LeafAxis]()] * ndim
        first = operands[0]
        if eqn.name == "transpose":
            return [first[axis] for axis in params["permutation"]]
        if eqn.name == "squeeze":
            kept = [a for a in range(len(first)) if a not in params["dimensions"]]
            return [first[axis] for axis in kept]
        if eqn.name == "broadcast_in_dim":
            out = list(none)
            for axis, place in enumerate(params["broadcast_dimensions"]):
                out[place] = first[axis]
            return out
        if eqn.name == "reshape":
            out = []
            for old, new in blocks(eqn.inputs[0].shape, params["new_sizes"]):
                joined = frozenset[LeafAxis]().union(*(first[axis] for axis in old))
                out += [joined] * len(new)
            return out
        if eqn.name == "dot_general":
            return _free_axes(eqn, operands)
        alike = [axes for axes in operands if len(axes) == ndim]
        return [
            frozenset[LeafAxis]().union(*axes) for axes in zip(*alike, strict=True)
        ] or none


def _contracted_axes(eqn: Equation) -> Sequence[Sequence[int]]:
    """Per operand the axes that a contraction sums over."""
    if eqn.name == "dot_general":
        return eqn.params["dimension_numbers"][0]
    if eqn.name == "conv_general_dilated":
        numbers = eqn.params["dimension_numbers"]
        return [numbers.lhs_spec[1]], [numbers.rhs_spec[1]]
    return [()] * len(eqn.inputs)


def _free_axes(eqn: Equation, operands: Sequence[_Axes]) -> _Axes:
    gone, batch = eqn.params["dimension_numbers"]
    out = [operands[0][a] | operands[1][b] for a, b in zip(*batch, strict=True)]
    for axes, contracted, shared in zip(operands, gone, batch, strict=True):
        out += [x for a, x in enumerate(axes) if a not in (*contracted, *shared)]
    return out
