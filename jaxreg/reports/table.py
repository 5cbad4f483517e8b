"""Tables of a penalty and its parameters, before and after training."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxreg._core.constraint import Constraint
from jaxreg._core.penalty import Number, Penalty, Tree
from jaxreg._core.ranges import check_positive
from jaxreg.reports import measure as measures
from jaxreg.rules.by_path import Leaves, read
from jaxreg.transforms.latent import start_of

Row = dict[str, Any]
_Leaf = jax.Array | jax.ShapeDtypeStruct


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows with the same keys: `str` gives aligned text, `markdown` Markdown."""

    rows: tuple[Row, ...]

    def __repr__(self) -> str:
        header, cells = self._cells()
        columns = list(zip(header, *cells, strict=True))
        widths = [max(map(len, column)) for column in columns]
        lines = [header, ["-" * width for width in widths], *cells]
        return "\n".join(
            "  ".join(map(str.ljust, line, widths)).rstrip() for line in lines
        )

    def markdown(self) -> str:
        header, cells = self._cells()
        # A bar would end the cell, in code too.
        cells = [[text.replace("|", "\\|") for text in line] for line in cells]
        lines = [header, ["---"] * len(header), *cells]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        header = list(self.rows[0]) if self.rows else ["no leaves"]
        return header, [[_text(row[key]) for key in header] for row in self.rows]


def describe(penalty: Penalty, params: Tree, width: Number = 0.05) -> Table:
    """Tabulates the effect of a penalty on each leaf, before training.

    Columns: the leaf's path and shape, its penalty or "free", the number of groups, the
    step of the prox under `regularize` (None for a penalty without a prox), and the
    share of the leaf that would become zero at the first update (0 for finite convex
    penalties, up to rounding; None for leaves without values, such as
    `jax.ShapeDtypeStruct`). Where neurons or filters are groups and a free `scale` of
    their number stands beside their layer, the column `scale_beside` names it: if that
    normalization layer follows, it undoes the shrinkage of the kernel and the penalty
    removes fewer units; see `channel_scales`. Leaves whose units a penalty couples,
    as `coupled` does, share one row.

    Args:
      penalty: a penalty, or rules.
      params: the parameters, or their `jax.eval_shape`.
      width: the `width` that will be passed to `regularize`.

    Raises:
      TypeError, ValueError: `regularize` would raise the same at its first update.

    >>> import jax.numpy as jnp, jaxreg
    >>> params = {"bias": jnp.zeros(2), "kernel": jnp.ones((3, 2))}
    >>> print(jaxreg.describe(jaxreg.on_kernels(jaxreg.L1(0.5)), params))
    leaf    shape   penalty           groups  prox_step  zeroed_at_start
    ------  ------  ----------------  ------  ---------  ---------------
    bias    (2,)    free
    kernel  (3, 2)  L1(strength=0.5)          0.1        0
    """
    leaves = read(penalty, params)
    check_positive("describe: width", width)
    for part in leaves.parts:
        # Raises if the penalty cannot take its leaves together.
        jax.eval_shape(part.penalty.value, part.pick(leaves.leaves))
    starts, scales = _first_params(leaves, width), _scales_beside(leaves)
    rows = [
        _described(leaves, indices, starts, width)
        | ({"scale_beside": scales.get(indices[0])} if scales else {})
        for indices in _in_rows(leaves)
    ]
    return Table(tuple(rows))


def _in_rows(leaves: Leaves) -> list[tuple[int, ...]]:
    """The leaves of each row: single ones, or all of a rule whose units span leaves."""
    joint = {
        index: part.indices
        for part in leaves.parts
        if part.penalty.layout.spans_leaves
        for index in part.indices
    }
    alone = ((index,) for index in range(len(leaves.leaves)))
    return list(dict.fromkeys(joint.get(own[0], own) for own in alone))


def _described(
    leaves: Leaves, indices: tuple[int, ...], starts: list[jax.Array], width: Number
) -> Row:
    owner = leaves.penalised.get(indices[0])
    own = [leaves.leaves[index] for index in indices]
    shapes = tuple(map(jnp.shape, own))
    pairs = list(zip(own, (starts[index] for index in indices), strict=True))
    return {
        "leaf": ", ".join(leaves.names[index] for index in indices),
        "shape": shapes[0] if len(own) == 1 else shapes,
        "penalty": owner or "free",
        "groups": owner.layout.unit_count(shapes[0]) if owner else None,
        "prox_step": _prox_step(owner, width),
        "zeroed_at_start": _newly_zero(pairs) if owner else None,
    }


def summary(penalty: Penalty, params: Tree) -> Table:
    """Sparsity, norm and penalty of each leaf, with totals in the last row.

    Columns: the leaf's path and shape, its penalty or "free", exact zeros and their
    share, groups that are entirely zero (as "dead of all"), Euclidean norm, and the
    value of the penalty, or the distance to the set of a constraint. The last row
    covers all leaves.

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
    read_leaves = read(penalty, params)
    leaves = list(map(jnp.asarray, read_leaves.leaves))
    owners, dead = read_leaves.penalised, dict[int, str]()
    for part in read_leaves.parts:
        own, layout = part.pick(leaves), part.penalty.layout
        counts = layout.dead_in_leaves(own) or []
        for index, count, leaf in zip(part.indices, counts, own, strict=False):
            dead[index] = f"{int(count)} of {layout.unit_count(leaf.shape)}"
    rows = [
        {
            **_identity(name, leaf, owners.get(index)),
            **_sizes([leaf]),
            "dead_groups": dead.get(index),
            "norm": float(measures.norm(leaf)) if _is_number(leaf) else 0.0,
            "value": _leaf_penalty(owners.get(index), leaf),
        }
        for index, (name, leaf) in enumerate(
            zip(read_leaves.names, leaves, strict=True)
        )
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


def _identity(name: str, leaf: _Leaf, owner: Penalty | None) -> Row:
    return {"leaf": name, "shape": jnp.shape(leaf), "penalty": owner or "free"}


def _scales_beside(leaves: Leaves) -> dict[int, str]:
    """By kernel whose neurons are groups, a free `scale` of its width beside it."""
    scales: dict[tuple[str, object], str] = {}
    for index, (name, leaf) in enumerate(zip(leaves.names, leaves.leaves, strict=True)):
        if name.rpartition("/")[2] == "scale" and index not in leaves.penalised:
            scales.setdefault((_parent(name), jnp.shape(leaf)[-1:]), name)
    out: dict[int, str] = {}
    for index, owner in leaves.penalised.items():
        name, shape = leaves.names[index], jnp.shape(leaves.leaves[index])
        key = _parent(name), shape[-1:]
        if len(shape) > 1 and owner.layout.unit_count(shape) == shape[-1]:
            out |= {index: scales[key]} if key in scales else {}
    return out


def _parent(name: str) -> str:
    """The path of the parent of a leaf's layer; lists of layers do not count."""
    layers = name.split("/")[:-1]
    while layers and layers[-1].isdigit():
        layers.pop()
    return "/".join(layers[:-1])


def _is_number(leaf: jax.Array) -> bool:
    # A free leaf may be anything: an NNX model with dropout holds random keys.
    return jnp.issubdtype(leaf.dtype, jnp.number)


def _sizes(leaves: list[jax.Array]) -> Row:
    count = sum(int(measures.zeros(leaf)) for leaf in leaves if _is_number(leaf))
    entries = sum(leaf.size for leaf in leaves)
    return {"zeros": count, "zero_share": count / max(entries, 1)}


def _prox_step(owner: Penalty | None, width: Number) -> float | None:
    return float(owner.step_for(width)) if owner and owner.facts.has_prox else None


def _leaf_penalty(owner: Penalty | None, leaf: jax.Array) -> float | str | None:
    if owner is None or owner.facts.is_joint:
        return None
    if isinstance(owner, Constraint):
        return f"off by {float(owner.violation(leaf)):.4g}"
    return float(owner.value(leaf))


def _first_params(leaves: Leaves, width: Number) -> list[jax.Array]:
    """The leaves after an update in which the optimizer changes nothing."""
    out = list(leaves.leaves)
    for part in leaves.parts:
        facts, own = part.penalty.facts, part.pick(leaves.leaves)
        is_abstract = any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in own)
        if is_abstract or not facts.has_prox:
            continue
        # A finite convex penalty starts at the parameters, up to rounding.
        if facts.is_convex and not isinstance(part.penalty, Constraint):
            continue
        starts = start_of(part.penalty, own, width)
        proxes = part.penalty.prox(starts, part.penalty.step_for(width))
        for index, prox in zip(part.indices, proxes, strict=True):
            out[index] = prox
    return out


def _newly_zero(pairs: list[tuple[_Leaf, jax.Array]]) -> float | None:
    """The share of the entries of leaves that are zero after a first update alone."""
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf, _ in pairs):
        return None
    lost = sum(
        float(jnp.sum((jnp.asarray(leaf) != 0) & (start == 0)))
        for leaf, start in pairs
        if start is not leaf
    )
    return lost / max(sum(jnp.size(leaf) for leaf, _ in pairs), 1)


def _text(cell: object) -> str:
    if cell is None:
        return ""
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
