"""Which units go: the fewest that must stay, found backwards from the outputs.

A position along a contraction is needed if its term reaches an entry that stays: if it
is not a known zero, and not a constant that a bias behind takes. All units of a needed
position stay. Starting with none, units are added until nothing changes. So units that
only feed units that go, or only themselves, go as well; and whatever has to stay for
another reason brings back what it depends on.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from jaxreg.compaction._known import Contraction, Reading
from jaxreg.compaction._terms import (
    Atom,
    Term,
    Units,
    atoms_of,
    mask_along,
    units_along,
)

Stay = dict[Atom, list[list[bool]]]
"""By atom and layer, True for each unit that stays; one layer outside stacks."""


@dataclasses.dataclass(frozen=True, eq=False)
class Evidence:
    """A contraction with its reading as arrays on the host.

    `takes_constants` is True where a bias behind takes what constant units add.
    """

    contraction: Contraction
    reading: Reading
    takes_constants: bool


def nothing_stays(atoms: Sequence[Atom], layers: Mapping[Atom, int]) -> Stay:
    """No unit of any atom."""
    return {
        atom: [[False] * atom.size for _ in range(layers.get(atom, 1))]
        for atom in atoms
    }


def spread(stay: Stay, evidence: Sequence[Evidence]) -> None:
    """Adds to `stay`, in place, all units that it needs."""
    changed = True
    while changed:
        # Readers come after makers: one sweep backwards reaches the inputs.
        sweeps = [_add_needed(stay, each) for each in reversed(evidence)]
        changed = any(sweeps)


def _add_needed(stay: Stay, evidence: Evidence) -> bool:
    """Adds the units that one contraction needs; True if there are new ones."""
    changed = False
    for layer, needed in enumerate(_needed(stay, evidence)):
        for axis, term in enumerate(evidence.contraction.contracted):
            for atom in atoms_of(term):
                if atom not in stay:
                    continue
                mask = stay[atom][layer if len(stay[atom]) > 1 else 0]
                for unit in units_of(term, atom, _any_but(needed, axis)):
                    changed |= not mask[unit]
                    mask[unit] = True
    return changed


def _needed(stay: Stay, evidence: Evidence) -> list[Any]:
    """Per layer, for each contracted position, True if a term there must stay."""
    out = []
    for live, varies in terms_at(stay, evidence):
        out.append(varies if evidence.takes_constants else live)
    return out


def terms_at(stay: Stay, evidence: Evidence) -> list[tuple[Any, Any]]:
    """Per layer, for each contracted position, if terms are not zero, and if they vary.

    Only terms of output entries that stay count.
    """
    contraction, reading = evidence.contraction, evidence.reading
    count = 1
    if contraction.is_per_layer:
        count = len(reading.sides[0].nonzero)
    out = []
    for layer in range(count):
        masks = masks_of(stay, layer)
        reduced = []
        for side, free in zip(reading.sides, contraction.free, strict=True):
            arrays = [x[layer] if contraction.is_per_layer else x for x in side]
            reduced.append([_reduce_free(x, free, masks) for x in arrays])
        (left, left_varies), (right, right_varies) = reduced
        batch = _masked(left & right, contraction.batch, masks)
        varies = (left_varies & right) | (left & right_varies)
        leading = tuple(range(len(contraction.batch)))
        out.append((batch.any(axis=leading), (varies & batch).any(axis=leading)))
    return out


def masks_of(stay: Stay, layer: int) -> dict[Atom, list[bool]]:
    """The masks of all atoms in one layer."""
    return {atom: masks[layer if len(masks) > 1 else 0] for atom, masks in stay.items()}


def _reduce_free(array: Any, free: Sequence[Term], masks: Mapping[Atom, Any]) -> Any:
    """Any entry along the free axes, which are last, at units that stay."""
    for term in reversed(free):
        on = [i for i, stays in enumerate(mask_along(term, masks)) if stays]
        array = array.take(on, axis=-1).any(axis=-1) if on else array[..., 0] & False
    return array


def _masked(array: Any, batch: Sequence[Term], masks: Mapping[Atom, Any]) -> Any:
    """The array, False at positions along the leading axes that do not stay."""
    array = array.copy()
    for axis, term in enumerate(batch):
        off = [i for i, stays in enumerate(mask_along(term, masks)) if not stays]
        array[(slice(None),) * axis + (off,)] = False
    return array


def _any_but(array: Any, axis: int) -> list[bool]:
    others = tuple(other for other in range(array.ndim) if other != axis)
    return array.any(axis=others).tolist()


@functools.lru_cache(maxsize=4096)
def _units(term: Term, atom: Atom) -> Units:
    return units_along(term, atom)


def units_of(term: Term, atom: Atom, positions: Sequence[bool]) -> set[int]:
    """The units of an atom at the positions of an axis that are True."""
    units = _units(term, atom)
    return {unit for unit, on in zip(units, positions, strict=True) if on and unit >= 0}


def constants_at(stay: Stay, evidence: Evidence) -> list[tuple[Atom, int, set[int]]]:
    """Atom, layer and units with terms here that are constant but not zero."""
    out = []
    for layer, (live, varies) in enumerate(terms_at(stay, evidence)):
        for axis, term in enumerate(evidence.contraction.contracted):
            for atom in dict.fromkeys(atoms_of(term)):
                if atom in stay:
                    units = units_of(term, atom, _any_but(live & ~varies, axis))
                    out.append((atom, layer if len(stay[atom]) > 1 else 0, units))
    return out


def top_up(stay: Stay, multiple_of: int) -> bool:
    """Brings back units until counts are right; True if there are new ones.

    The counts of all layers are equal, at least one and a multiple of `multiple_of`, or
    all units. The first units that would go are brought back.
    """
    changed = False
    for atom, masks in stay.items():
        most = max(1, *(sum(mask) for mask in masks))
        target = min(atom.size, -(-most // multiple_of) * multiple_of)
        for mask in masks:
            off = [unit for unit, stays in enumerate(mask) if not stays]
            for unit in off[: target - sum(mask)]:
                mask[unit] = changed = True
    return changed
