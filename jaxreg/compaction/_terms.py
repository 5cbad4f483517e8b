"""Terms of axes: how the positions along an axis are made of the units of dimensions.

An axis is an atom (its positions are the units of one dimension), a product (a reshape
joined several axes, the major one first) or a sum (axes were concatenated). Unification
states that two axes have equal positions: it binds atoms to terms, and cuts an atom in
two where the other side has a boundary. Where two terms have no common refinement both
are frozen, which is always right: a frozen axis keeps its length.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence


@dataclasses.dataclass(eq=False)
class Atom:
    """Units of one dimension; `frozen` is the reason why none may go, or None."""

    size: int
    frozen: str | None = None
    bound: Term | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Product:
    """Axes joined by a reshape, the major one first; one of length 1 has no factors."""

    parts: tuple[Term, ...]

    @property
    def size(self) -> int:
        return math.prod(part.size for part in self.parts)


@dataclasses.dataclass(frozen=True, eq=False)
class Sum:
    """Concatenated axes; an empty axis has no parts."""

    parts: tuple[Term, ...]

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)


Term = Atom | Product | Sum
Axes = list[Term]
"""The terms of an array, one per axis."""
Reason = str | Callable[[], str]
"""Why an axis keeps its length; a function where the text takes time to find."""
Units = tuple[int, ...]
"""Per position along an axis the index of a unit, or -1."""

ONE = Product(())
EMPTY = Sum(())


def product(parts: Iterable[Term]) -> Term:
    """The normal form of a product: flat, without factors of length 1.

    A sum in front distributes: `(a + b) * c` is `a * c + b * c`.
    """
    flat: list[Term] = []
    for part in map(resolve, parts):
        if isinstance(part, Product):
            flat += part.parts
        elif part.size != 1:
            flat.append(part)
    if len(flat) == 1:
        return flat[0]
    if flat and isinstance(flat[0], Sum):
        return total(product([part, *flat[1:]]) for part in flat[0].parts)
    return Product(tuple(flat))


def total(parts: Iterable[Term]) -> Term:
    """The normal form of a sum: flat, without empty parts."""
    flat: list[Term] = []
    for part in map(resolve, parts):
        if isinstance(part, Sum):
            flat += part.parts
        elif part.size:
            flat.append(part)
    return flat[0] if len(flat) == 1 else Sum(tuple(flat))


def resolve(term: Term) -> Term:
    """The term with every bound atom replaced by what it is bound to."""
    if isinstance(term, Atom):
        if term.bound is None:
            return term
        term.bound = resolve(term.bound)
        return term.bound
    parts = [resolve(part) for part in term.parts]
    if all(new is old for new, old in zip(parts, term.parts, strict=True)):
        return term
    return product(parts) if isinstance(term, Product) else total(parts)


def atoms_of(term: Term) -> list[Atom]:
    """The unbound atoms of a term, in order; one that occurs twice is named twice."""
    term = resolve(term)
    if isinstance(term, Atom):
        return [term]
    return [atom for part in term.parts for atom in atoms_of(part)]


def freeze(term: Term, reason: Reason) -> None:
    """Keeps all units of a term; an atom keeps the first reason."""
    for atom in atoms_of(term):
        if atom.frozen is None:
            atom.frozen = reason if isinstance(reason, str) else reason()


def freeze_powers(term: Term) -> None:
    """Freezes atoms that occur in two factors of a product, such as a flat square."""
    term = resolve(term)
    if isinstance(term, Atom):
        return
    if isinstance(term, Product):
        before: set[Atom] = set()
        for part in term.parts:
            atoms = set(atoms_of(part))
            for atom in atoms & before:
                freeze(atom, "twice in one axis")
            before |= atoms
    for part in term.parts:
        freeze_powers(part)


def unify(first: Term, second: Term, reason: Reason) -> None:
    """States that two axes have equal positions, or freezes both for `reason`."""
    first, second = resolve(first), resolve(second)
    if first is second or first.size <= 1:
        return
    if isinstance(first, Atom) or isinstance(second, Atom):
        atom, other = (first, second) if isinstance(first, Atom) else (second, first)
        assert isinstance(atom, Atom)
        if atom in atoms_of(other):
            freeze(other, reason)
        else:
            _bind(atom, other)
        return
    if isinstance(first, Sum) or isinstance(second, Sum):
        lead = first if isinstance(first, Sum) else second
        assert isinstance(lead, Sum)
        length = lead.parts[0].size
        heads = _split_sum(first, length), _split_sum(second, length)
    else:
        factor = min(first.parts[0].size, second.parts[0].size)
        heads = split_product(first, factor), split_product(second, factor)
    if heads[0] is None or heads[1] is None:
        freeze(first, reason)
        freeze(second, reason)
        return
    for one, other in zip(heads[0], heads[1], strict=True):
        unify(one, other, reason)


def _bind(atom: Atom, term: Term) -> None:
    if atom.frozen is not None:
        freeze(term, atom.frozen)
    atom.bound = term


def split_product(term: Term, major: int) -> tuple[Term, Term] | None:
    """The term as (axis of length `major`) * (the rest), or None; binds atoms."""
    term = resolve(term)
    if major in (1, term.size):
        return (ONE, term) if major == 1 else (term, ONE)
    if term.size % major:
        return None
    if isinstance(term, Atom):
        halves = Atom(major), Atom(term.size // major)
        _bind(term, Product(halves))
        return halves
    if isinstance(term, Sum):
        return None
    front: list[Term] = []
    rest, needed = list(term.parts), major
    while rest and needed % rest[0].size == 0:
        needed //= rest[0].size
        front.append(rest.pop(0))
    if needed == 1:
        return product(front), product(rest)
    cut = split_product(rest[0], needed) if rest[0].size % needed == 0 else None
    if cut is None:
        return None
    return product([*front, cut[0]]), product([cut[1], *rest[1:]])


def _split_sum(term: Term, length: int) -> tuple[Term, Term] | None:
    """The term as its first `length` positions and the rest, or None; binds atoms."""
    term = resolve(term)
    if length in (0, term.size):
        return (EMPTY, term) if length == 0 else (term, EMPTY)
    if isinstance(term, Atom):
        halves = Atom(length), Atom(term.size - length)
        _bind(term, Sum(halves))
        return halves
    if isinstance(term, Product):
        minor = product(term.parts[1:])
        if length % minor.size:
            return None
        cut = _split_sum(term.parts[0], length // minor.size)
        return cut and (product([cut[0], minor]), product([cut[1], minor]))
    front: list[Term] = []
    rest, needed = list(term.parts), length
    while rest and rest[0].size <= needed:
        needed -= rest[0].size
        front.append(rest.pop(0))
    if needed == 0:
        return total(front), total(rest)
    cut = _split_sum(rest[0], needed)
    return cut and (total([*front, cut[0]]), total([cut[1], *rest[1:]]))


def regroup(terms: Sequence[Term], sizes: Sequence[int]) -> Axes | None:
    """The axes of `sizes` that a reshape makes of other axes, or None."""
    rest, out = product(terms), Axes()
    for size in sizes:
        cut = split_product(rest, size)
        if cut is None:
            return None
        out.append(cut[0])
        rest = cut[1]
    return out


def units_along(term: Term, atom: Atom) -> Units:
    """Per position of an axis the unit of `atom` that it belongs to, or -1."""
    term = resolve(term)
    if isinstance(term, Atom):
        return tuple(range(term.size)) if term is atom else (-1,) * term.size
    if isinstance(term, Sum):
        return tuple(unit for part in term.parts for unit in units_along(part, atom))
    out: Units = (-1,)
    for part in term.parts:
        minor = units_along(part, atom)
        out = tuple(max(unit, other) for unit in out for other in minor)
    return out


def mask_along(term: Term, masks: Mapping[Atom, Sequence[bool]]) -> tuple[bool, ...]:
    """Per position of an axis, True where `masks` is true at the unit of each atom."""
    term = resolve(term)
    if isinstance(term, Atom):
        return tuple(masks[term]) if term in masks else (True,) * term.size
    if isinstance(term, Sum):
        return tuple(on for part in term.parts for on in mask_along(part, masks))
    out: tuple[bool, ...] = (True,)
    for part in term.parts:
        minor = mask_along(part, masks)
        out = tuple(on and other for on in out for other in minor)
    return out
