"""How a rule tells its leaves: by a regular expression, or as the kernels of layers."""

from __future__ import annotations

import dataclasses
import re
from typing import Any


@dataclasses.dataclass(frozen=True, repr=False)
class Kernels:
    """The kernels of some layers; what `jaxreg.presets` puts in a pattern's place.

    A path is caught if `leaf` matches its end from a slash on, and `layers` is found in
    what stands before that. A caught leaf must have the axes that are named.
    """

    call: str
    layers: str
    leaf: str
    axes: tuple[str, ...]

    def catches(self, path: str) -> bool:
        found = re.fullmatch(f"(?:(.*)/)?(?:{self.leaf})", path)
        return found is not None and bool(re.search(self.layers, found[1] or ""))

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        if len(shape) == len(self.axes):
            return None
        return (
            f"has {len(shape)} axes, and the kernels of {self.call} have "
            f"{len(self.axes)}, ({', '.join(self.axes)}). Narrow layers=; or say with "
            "stacked= how many leading axes nn.scan or nnx.vmap adds, and in "
            "input_features and filters with spatial= along how many a layer "
            "convolves; or name the group_axis in a rule of by_path"
        )

    def __repr__(self) -> str:
        return self.call


Pattern = str | Kernels


def check_pattern(call: str, pattern: Any) -> None:
    """Refuses what is no regular expression."""
    if not isinstance(pattern, str):
        raise ValueError(f"{call}: {pattern!r} is no regular expression: no str")
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"{call}: {pattern!r} is no regular expression: {error}"
        ) from error


def catches(pattern: Pattern, path: str) -> bool:
    """Whether a rule with this pattern catches the leaf at a path."""
    if isinstance(pattern, Kernels):
        return pattern.catches(path)
    return re.search(pattern, path) is not None
