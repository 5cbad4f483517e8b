"""Tables about a penalty and parameters: before training and after."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxreg._core.checks import check_positive
from jaxreg._core.constraint import Constraint
from jaxreg._core.penalty import Number, Penalty, Tree
from jaxreg.reports import measure as measures
from jaxreg.rules import by_path as rules
from jaxreg.transforms.latent import start_of

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows with the same keys: `str` gives aligned text, `markdown` Markdown."""

    rows: tuple[Row, ...]

    def __str__(self) -> str:
        header, cells = self._cells()
        columns = list(zip(header, *cells, strict=True))
        widths = [max(map(len, column)) for column in columns]
        lines = [header, ["-" * width for width in widths], *cells]
        return "\n".join(
            "  ".join(map(str.ljust, line, widths)).rstrip() for line in lines
        )

    def markdown(self) -> str:
        header, cells = self._cells()
        lines = [header, ["---"] * len(header), *cells]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        header = list(self.rows[0]) if self.rows else ["no leaves"]
        return header, [[_text(row[key]) for key in header] for row in self.rows]


def describe(penalty: Penalty, params: Tree, width: Number = 0.05) -> Table:
    """What a penalty will do to parameters, leaf by leaf, before training.

    Columns: the leaf's path and shape, its penalty or "free", the number of groups, the
    step of the prox under `regularize` (none for a penalty without a prox), and the
    share of the leaf that would become zero at the first update (0 for finite convex
    penalties, up to rounding; None for leaves without values, such as
    `jax.ShapeDtypeStruct`).

    Args:
      penalty: a penalty, or rules.
      params: the parameters, or their `jax.eval_shape`.
      width: the `width` that `regularize` will be given.

    Raises:
      TypeError, ValueError: what `regularize` would refuse at its first update.

    >>> import jax.numpy as jnp, jaxreg
    >>> params = {"bias": jnp.zeros(2), "kernel": jnp.ones((3, 2))}
    >>> print(jaxreg.describe(jaxreg.on_kernels(jaxreg.L1(0.5)), params))
    leaf    shape   penalty           groups  prox_step  zeroed_at_start
    ------  ------  ----------------  ------  ---------  ---------------
    bias    (2,)    free
    kernel  (3, 2)  L1(strength=0.5)          0.1        0
    """
    parts = rules.check(penalty, params)
    check_positive("describe: width", width)
    leaves = jax.tree.leaves(params)
    for part in parts:
        # What a penalty refuses about its leaves taken together.
        jax.eval_shape(part.penalty.value, part.of(leaves))
    starts, owners = _first_params(parts, leaves, width), _owners(parts, len(leaves))
    rows = [
        {
            **_identity(name, leaf, owner),
            "groups": _group_count(owner, leaf),
            "prox_step": _prox_step(owner, width),
            "zeroed_at_start": _newly_zero(leaf, start) if owner else None,
        }
        for name, owner, leaf, start in zip(
            rules.paths(params), owners, leaves, starts, strict=True
        )
    ]
    return Table(tuple(rows))


def summary(penalty: Penalty, params: Tree) -> Table:
    """What became of parameters, leaf by leaf, and in a last row all together.

    Columns: the leaf's path and shape, its penalty or "free", exact zeros and their
    share, groups that are zero throughout (as "dead of all"), Euclidean norm, and the
    penalty's value, of a constraint the distance to its set. The last row is over all
    leaves.

    Raises:
      TypeError, ValueError: as `describe`.

    >>> import jax.numpy as jnp, jaxreg
    >>> params = {"kernel": jnp.array([[3.0, 4.0], [0.0, 0.0]])}
    >>> print(jaxreg.summary(jaxreg.on_kernels(jaxreg.L1(0.5)), params))
    leaf    shape   penalty           zeros  zero_share  dead_groups  norm  value
    ------  ------  ----------------  -----  ----------  -----------  ----  -----
    kernel  (2, 2)  L1(strength=0.5)  2      0.5                      5     3.5
    total   4                         2      0.5                      5     3.5
    """
    parts = rules.check(penalty, params)
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(params)]
    owners = _owners(parts, len(leaves))
    rows = [
        {
            **_identity(name, leaf, owner),
            **_sizes([leaf]),
            "dead_groups": _dead_text(owner, leaf),
            "norm": float(measures.norm(leaf)) if _is_number(leaf) else 0.0,
            "value": _leaf_penalty(owner, leaf),
        }
        for name, owner, leaf in zip(rules.paths(params), owners, leaves, strict=True)
    ]
    total = {
        "leaf": "total",
        "shape": sum(leaf.size for leaf in leaves),
        "penalty": None,
        **_sizes(leaves),
        "dead_groups": None,
        "norm": math.hypot(*(row["norm"] for row in rows)),
        "value": float(penalty.value(params)),
    }
    return Table((*rows, total))


def _owners(parts: list[rules.Part], count: int) -> list[Penalty | None]:
    owners: list[Penalty | None] = [None] * count
    for part in parts:
        for place in part.places:
            owners[place] = part.penalty
    return owners


def _identity(name: str, leaf: Any, owner: Penalty | None) -> Row:
    return {"leaf": name, "shape": jnp.shape(leaf), "penalty": owner or "free"}


def _is_number(leaf: jax.Array) -> bool:
    # A free leaf may be anything: an NNX model with dropout holds random keys.
    return jnp.issubdtype(leaf.dtype, jnp.number)


def _sizes(leaves: list[jax.Array]) -> Row:
    count = sum(int(measures.zeros(leaf)) for leaf in leaves if _is_number(leaf))
    entries = sum(leaf.size for leaf in leaves)
    return {"zeros": count, "zero_share": count / max(entries, 1)}


def _group_count(owner: Penalty | None, leaf: Any) -> int | None:
    return None if owner is None else owner.group_count(jnp.shape(leaf))


def _dead_text(owner: Penalty | None, leaf: jax.Array) -> str | None:
    dead = measures.dead_groups(owner, leaf) if owner else None
    return None if dead is None else f"{int(dead)} of {_group_count(owner, leaf)}"


def _prox_step(owner: Penalty | None, width: Number) -> float | None:
    return float(owner.step_for(width)) if owner and owner.has_prox else None


def _leaf_penalty(owner: Penalty | None, leaf: jax.Array) -> float | str | None:
    if owner is None or owner.scope == "tree":
        return None
    if isinstance(owner, Constraint):
        return f"off by {float(owner.violation(leaf)):.4g}"
    return float(owner.value(leaf))


def _first_params(
    parts: list[rules.Part], leaves: list[Any], width: Number
) -> list[Any]:
    """The leaves after an update in which the optimizer does not move."""
    out = list(leaves)
    for part in parts:
        if not part.penalty.has_prox or _is_abstract(part.of(leaves)):
            continue
        # A finite convex penalty starts at the parameters, up to rounding.
        if part.penalty.is_convex and not isinstance(part.penalty, Constraint):
            continue
        starts = start_of(part.penalty, part.of(leaves), width)
        proxes = part.penalty.prox(starts, part.penalty.step_for(width))
        for place, prox in zip(part.places, proxes, strict=True):
            out[place] = prox
    return out


def _is_abstract(leaves: list[Any]) -> bool:
    return any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)


def _newly_zero(leaf: Any, start: Any) -> float | None:
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return None
    if start is leaf:
        return 0.0
    lost = (jnp.asarray(leaf) != 0) & (start == 0)
    return float(jnp.sum(lost)) / max(lost.size, 1)


def _text(cell: Any) -> str:
    if cell is None:
        return ""
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
