"""Patterns that select the leaves of a rule: regular expressions, kernels of layers."""

from __future__ import annotations

import dataclasses
import re

from jaxreg._core.messages import shown


@dataclasses.dataclass(frozen=True, repr=False)
class Kernels:
    """The pattern of the presets for Flax: kernels of some layers, with named axes.

    `leaf` must match the end of a path, from a slash on, and `layers` is searched in
    the part before. `call` is the preset's call, for messages.
    """

    call: str
    layers: str
    leaf: str
    axes: tuple[str, ...]

    def catches(self, path: str) -> bool:
        """True if the leaf at `path` is one of these kernels."""
        match = re.fullmatch(f"(?:(.*)/)?(?:{self.leaf})", path)
        return match is not None and bool(re.search(self.layers, match[1] or ""))

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        """The reason why a kernel of this shape is not allowed, or None."""
        if len(shape) == len(self.axes):
            return None
        return (
            f"has {len(shape)} axes, and the kernels of {self.call} have "
            f"{len(self.axes)}, ({', '.join(self.axes)}). Narrow layers=, or set "
            "stacked= to the number of leading axes added by nn.scan or nnx.vmap and, "
            "in input_features and filters, spatial= to the number of axes that a "
            "layer convolves, or give group_axis in a rule of by_path"
        )

    def advice(self) -> str:
        """The mend where the pattern of the layers names their kernel."""
        is_of_leaf = re.search(r"kernel\$?$", self.layers) is not None
        return "; leave '/kernel' out of layers" if is_of_leaf else ""

    def __repr__(self) -> str:
        return self.call


Pattern = str | Kernels


def check_pattern(call: str, pattern: object) -> None:
    """Raises a ValueError if `pattern` is not a regular expression."""
    if not isinstance(pattern, str):
        raise ValueError(
            f"{call}: {shown(pattern)} is no regular expression; allowed: a str, as "
            "'first|hidden'"
        )
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"{call}: {shown(pattern)} is no regular expression: {error}; allowed: a "
            "pattern for re.search, in which any text is '.*'"
        ) from error


def catches(pattern: Pattern, path: str) -> bool:
    """True if a rule with this pattern selects the leaf at `path`."""
    if isinstance(pattern, Kernels):
        return pattern.catches(path)
    return re.search(pattern, path) is not None
