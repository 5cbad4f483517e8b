"""Penalties of neighbours along one axis of a leaf."""

from __future__ import annotations

from jaxreg._core.groups import is_int
from jaxreg._core.layout import Lines
from jaxreg._core.leafwise import Leafwise
from jaxreg._core.messages import shown


class Linewise(Leafwise):
    """A penalty of the lines along `axis`; other axes are independent."""

    axis: int

    has_loop = True

    def __post_init__(self) -> None:
        if not is_int(self.axis):
            raise TypeError(
                f"{type(self).__name__}: axis is {shown(self.axis)}; allowed: an int, "
                "one axis"
            )

    @property
    def layout(self) -> Lines:
        return Lines(self.axis)


def check_same_axis(first: Linewise, second: Linewise) -> None:
    """Raises if two penalties, which are to be added, have different axes."""
    if first.axis != second.axis:
        raise TypeError(
            f"{shown(first)} + {shown(second)}: the prox of total variation along two "
            "axes is not known in closed form, and composing the two proxes would "
            "solve another problem. Write both with the same axis, or chain "
            "jaxreg.add_penalty_gradient(one) before jaxreg.regularize with the other"
        )
