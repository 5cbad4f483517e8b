"""The trace of a model: its program, the term of every axis, its dimensions."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax

from jaxreg._core.messages import shown
from jaxreg._core.penalty import Tree
from jaxreg.compaction._dimensions import Dimension, Member
from jaxreg.compaction._jaxpr import (
    Equation,
    Literal,
    Operand,
    Program,
    Variable,
    trace,
)
from jaxreg.compaction._rules import ELEMENTWISE, Walk, fresh
from jaxreg.compaction._sources import Readers, activations_of
from jaxreg.compaction._terms import (
    Atom,
    Axes,
    atoms_of,
    freeze,
    freeze_powers,
    resolve,
    units_along,
)
from jaxreg.rules.by_path import paths

Apply = Callable[..., Tree]
"""A model as a function of parameters and inputs."""


@dataclasses.dataclass(frozen=True, eq=False)
class Traced:
    """A program with terms; `leaf_axes` are those of the leaves of the parameters.

    `layers` has, by atom with units of its own in each layer of a stack, the number of
    layers.
    """

    program: Program
    out_tree: jax.tree_util.PyTreeDef
    axes: Mapping[Variable, Axes]
    paths: tuple[str, ...]
    leaf_axes: tuple[Axes, ...]
    activations: set[Variable]
    layers: Mapping[Atom, int]
    atoms: tuple[Atom, ...]
    dimensions: tuple[Dimension, ...]

    def axes_of(self, operand: Operand) -> Axes:
        """The terms of the axes of a value; those of a literal are fresh."""
        if isinstance(operand, Literal):
            return [Atom(size) for size in operand.shape]
        return self.axes[operand]

    @property
    def removable(self) -> list[Atom]:
        """The atoms of which units may go."""
        return [atom for atom in self.atoms if atom.frozen is None]


def traced(apply: Apply, params: Tree, inputs: Sequence[Tree]) -> Traced:
    """Traces a model at the shapes of its parameters and inputs; runs nothing."""
    program, out_tree = _program(apply, params, inputs)
    count = len(jax.tree.leaves(params))
    activations = activations_of(program, program.inputs[count:])
    axes: dict[Variable, Axes] = {}
    for index, variable in enumerate(program.inputs):
        axes[variable] = fresh(variable, None if index < count else "input")
    leaf_axes = tuple(list(axes[variable]) for variable in program.inputs[:count])
    walk = Walk(program, axes, activations)
    for operand in program.outputs:
        for term in walk.of(operand):
            freeze(term, "output")
    for terms in walk.axes.values():
        for term in terms:
            freeze_powers(term)
    summed = _atoms(walk.contracted)
    for atom in {atom for terms in leaf_axes for atom in _atoms(terms)} - summed:
        freeze(atom, "nothing sums over it; does apply use this leaf?")
    layers = _layers(program, walk, leaf_axes)
    readers = Readers(program, count, activations)
    names = tuple(paths(params))
    members = _members(names, leaf_axes, readers, layers)
    atoms = tuple(members)
    dimensions = tuple(
        Dimension(atom.size, tuple(members[atom]), atom.frozen, layers.get(atom))
        for atom in atoms
    )
    return Traced(
        program,
        out_tree,
        walk.axes,
        names,
        leaf_axes,
        activations,
        layers,
        atoms,
        dimensions,
    )


def _program(
    apply: Apply, params: Tree, inputs: Sequence[Tree]
) -> tuple[Program, jax.tree_util.PyTreeDef]:
    try:
        return trace(apply, params, *inputs)
    except Exception as error:
        raise TypeError(
            f"apply(params, *inputs) cannot be traced: {type(error).__name__}: "
            f"{shown(str(error))}; allowed: a function that takes the parameters first "
            "and returns arrays"
        ) from error


def _members(
    names: Sequence[str],
    leaf_axes: Sequence[Axes],
    readers: Readers,
    layers: Mapping[Atom, int],
) -> dict[Atom, list[Member]]:
    """The members of every atom of more than one unit, in the order of the leaves."""
    out: dict[Atom, list[Member]] = {}
    for index, (name, terms) in enumerate(zip(names, leaf_axes, strict=True)):
        size = math.prod(term.size for term in terms)
        for axis, term in enumerate(terms):
            for atom in dict.fromkeys(atoms_of(term)):
                if atom.size == 1:
                    continue
                units = units_along(term, atom)
                entries = units.count(0) * size // len(units)
                out.setdefault(atom, []).append(
                    Member(
                        name,
                        axis,
                        units,
                        entries // layers.get(atom, 1),
                        readers.is_contracted(index, axis),
                    )
                )
    return out


def _layers(program: Program, walk: Walk, leaf_axes: Sequence[Axes]) -> dict[Atom, int]:
    """By atom that occurs in one stack of layers alone, the number of layers.

    Its leaves all have the layers along axis 0, and outside the scan nothing has the
    atom but elementwise functions of them, such as a conversion.
    """
    stacks: dict[Atom, Atom] = {}
    outside: set[Atom] = set()
    for eqn in program.equations:
        operands = () if eqn.name == "scan" else eqn.inputs
        for axes in map(walk.of, (*operands, *eqn.outputs)):
            lead = resolve(axes[0]) if axes and eqn.name in ELEMENTWISE else None
            for atom in _atoms(axes):
                own = isinstance(lead, Atom) and stacks.setdefault(atom, lead)
                if lead is None or own is not lead:
                    outside.add(atom)
        if eqn.name == "scan":
            outside |= _enter(eqn, walk, stacks)
    for terms in leaf_axes:
        for atom in _atoms(terms):
            if atom in stacks and resolve(terms[0]) is not stacks[atom]:
                outside.add(atom)
    sliced = _sliced(program, walk)
    return {
        atom: stack.size
        for atom, stack in stacks.items()
        if atom in sliced and atom not in outside
    }


def _sliced(program: Program, walk: Walk) -> set[Atom]:
    """The atoms of what scans slice."""
    scans = [eqn for eqn in program.equations if eqn.name == "scan"]
    operands = [each for eqn in scans for each in eqn.inputs[sum(eqn.scan_counts) :]]
    return {atom for each in operands for atom in _atoms(walk.of(each)[1:])}


def _enter(eqn: Equation, walk: Walk, stacks: dict[Atom, Atom]) -> set[Atom]:
    """Notes the stack of each atom that a scan slices; the atoms that it shares."""
    operands = walk.inputs(eqn)
    whole = sum(eqn.scan_counts)
    shared = {atom for axes in operands[:whole] for atom in _atoms(axes)}
    for axes in operands[whole:]:
        lead = resolve(axes[0])
        for atom in _atoms(axes[1:]):
            if not isinstance(lead, Atom) or stacks.setdefault(atom, lead) is not lead:
                shared.add(atom)
    return shared


def _atoms(axes: Iterable[Any]) -> set[Atom]:
    return {atom for term in axes for atom in atoms_of(term)}
