"""The dimensions of a model: axes of its leaves that must keep one common length."""

from __future__ import annotations

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Member:
    """An axis of a leaf with slices of the units of a dimension.

    `units` names, for each position along the axis, the unit that it belongs to, or -1.
    `entries` is the number of entries of the leaf in one unit (of one layer, where
    layers have units of their own). A compact model keeps the number of its original,
    so that the weights of groups in a penalty stay. `is_contracted` is True where the
    model sums over the axis: the leaf reads the units, another one makes them.
    """

    path: str
    axis: int
    units: tuple[int, ...]
    entries: int
    is_contracted: bool


@dataclasses.dataclass(frozen=True)
class Dimension:
    """Axes of leaves that must keep one common length, and their units.

    `frozen` is the reason why no unit may be removed, or None. `layers` is the length
    of axis 0 of all members where each layer of a stack has units of its own, or None.
    """

    size: int
    members: tuple[Member, ...]
    frozen: str | None = None
    layers: int | None = None

    def has_leaf(self, only: str | None) -> bool:
        """True if `only` finds a leaf of the dimension, or is None."""
        return only is None or any(re.search(only, m.path) for m in self.members)
