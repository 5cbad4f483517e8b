"""Penalties of neighbours along one axis of a leaf, or along two."""

from __future__ import annotations

from typing import ClassVar

from jaxreg._core.groups import is_int
from jaxreg._core.layout import Lines
from jaxreg._core.leafwise import Leafwise
from jaxreg._core.messages import shown


class Linewise(Leafwise):
    """A penalty of the lines along `axis`; other axes are independent.

    Where it `takes_planes`, `axis` may be the pair of axes of a plane.
    """

    axis: int | tuple[int, int]

    has_loop = True
    takes_planes: ClassVar[bool] = False

    def __post_init__(self) -> None:
        axis = self.axis
        is_plane = isinstance(axis, tuple) and len(axis) == 2 and all(map(is_int, axis))
        if not (is_int(axis) or (self.takes_planes and is_plane)):
            pair = ", or a pair of ints, as (0, 1)" if self.takes_planes else ""
            raise TypeError(
                f"{type(self).__name__}: axis is {shown(axis)}; allowed: an int, one "
                f"axis{pair}"
            )

    @property
    def layout(self) -> Lines:
        return Lines(self.axis)


def check_same_axis(first: Linewise, second: Linewise) -> None:
    """Raises if two penalties, which are to be added, have different axes."""
    if first.axis != second.axis:
        raise TypeError(
            f"{shown(first)} + {shown(second)}: total variations along two axes have "
            "one strength, jaxreg.TotalVariation(strength, axis=(0, 1)), and composing "
            "the two proxes would solve another problem. Write both with the same "
            "axis, or chain jaxreg.add_penalty_gradient(one) before jaxreg.regularize "
            "with the other"
        )
