"""Couplings: which axes of which leaves must keep one common length.

A dimension is a set of axes that must have one length. Each equation of a model
commutes with the selection of indices along a dimension, contracts it, or freezes it.
Removing units therefore changes nothing if and only if, at each contraction over the
dimension, their terms are zero for every input, or a constant that a bias behind it
takes. Only contracted axes decide, never batch axes: a head of an attention layer goes
when the output projection does not read it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from jaxreg._core.messages import shown
from jaxreg._core.penalty import Penalty, Tree
from jaxreg.compaction._dimensions import Dimension
from jaxreg.compaction._trace import Apply, traced
from jaxreg.reports.table import Row, Table


@dataclasses.dataclass(frozen=True)
class Couplings:
    """The dimensions of a model; `print` shows them. Hashable, holds no arrays.

    `shapes` are those of the leaves at `paths`.
    """

    apply: Apply
    dimensions: tuple[Dimension, ...]
    paths: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def removable(self) -> tuple[Dimension, ...]:
        """The dimensions of which units may be removed."""
        return tuple(each for each in self.dimensions if each.frozen is None)

    @property
    def rows(self) -> tuple[Row, ...]:
        """One row per dimension, the removable ones first."""
        ordered = sorted(self.dimensions, key=lambda each: each.frozen is not None)
        return tuple(
            {
                "units": dimension.size,
                "verdict": f"frozen: {dimension.frozen}"
                if dimension.frozen
                else "removable",
                "layers": dimension.layers,
                "leaves": ", ".join(f"{m.path}[{m.axis}]" for m in dimension.members),
            }
            for dimension in ordered
        )

    def __repr__(self) -> str:
        return str(Table(self.rows))


def couplings(apply: Apply, params: Tree, *inputs: Tree) -> Couplings:
    """Finds the units of a model: which slices of which leaves belong together.

    `apply` is traced, not run: parameters and inputs may be `jax.ShapeDtypeStruct`s.
    The result tells what `coupled` penalises as a whole and what `compact` can remove.
    Frozen dimensions come with their reason: what a normalization or softmax runs over,
    inputs, outputs, and whatever meets a primitive without a rule.

    Args:
      apply: the model as a function of parameters and inputs, in evaluation mode.
        Parameters that it captures instead of taking them are frozen.
      params: a tree of parameters, with statistics if the model has them.
      *inputs: examples with at least two entries along each axis, and the longest
        sequence, since tables of positions become constants.

    Raises:
      TypeError: `apply` is not a function, or it cannot be traced.
      ValueError: no dimension is removable, or the model draws random numbers.

    >>> import jax, jax.numpy as jnp, jaxreg
    >>> def apply(params, x):
    ...     return jax.nn.relu(x @ params["hidden"]) @ params["out"]
    >>> params = {"hidden": jnp.ones((5, 8)), "out": jnp.ones((8, 3))}
    >>> print(jaxreg.couplings(apply, params, jnp.ones((2, 5))))
    units  verdict         layers  leaves
    -----  --------------  ------  -----------------
    8      removable               hidden[1], out[0]
    5      frozen: input           hidden[0]
    3      frozen: output          out[1]
    """
    check_model(apply, params, inputs)
    found = traced(apply, params, inputs)
    shapes = tuple(tuple(term.size for term in axes) for axes in found.leaf_axes)
    result = Couplings(apply, found.dimensions, found.paths, shapes)
    if not result.removable:
        raise ValueError(_nothing_removable(result))
    return result


def check_model(apply: Any, params: Any, inputs: tuple[Any, ...]) -> None:
    """Raises if the arguments of a trace are not a function and trees of arrays."""
    if not callable(apply):
        hint = "; the function comes first" if callable(params) else ""
        raise TypeError(
            f"apply is {shown(apply)}; allowed: a function apply(params, *inputs){hint}"
        )
    if isinstance(params, Penalty):
        raise TypeError(f"params is {shown(params)}; allowed: a tree of arrays")
    if not jax.tree.leaves(params):
        raise ValueError(
            f"params is {shown(params)}, without leaves; pass what the model is a "
            "function of as the first argument of apply, apply(params, *inputs)"
        )
    if not jax.tree.leaves(inputs):
        raise ValueError(
            "inputs are missing; pass examples, or their jax.ShapeDtypeStruct, as "
            "apply takes them behind params"
        )


def check_couplings(couplings: object) -> None:
    """Raises if `couplings` are not those of a model."""
    if not isinstance(couplings, Couplings):
        raise TypeError(
            f"couplings is {shown(couplings)}; allowed: jaxreg.couplings(apply, "
            "params, *inputs)"
        )


def _nothing_removable(result: Couplings) -> str:
    reasons = [f"{d.frozen} ({d.size} units)" for d in result.dimensions]
    return (
        "couplings: no dimension of this model has units that may be removed: "
        f"{'; '.join(dict.fromkeys(reasons)) or 'its leaves have no axes'}. "
        "Trace in evaluation mode, without dropout and without captured weights"
    )
