"""Compares two models on inputs: the gap of their outputs, and what it may be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxreg._core.penalty import Tree

Model = Callable[[], Tree]


def fresh_inputs(inputs: Sequence[Tree]) -> tuple[Tree, ...]:
    """Other inputs of the same shapes and dtypes, drawn from the examples' entries.

    Integers are resampled; floats also change in size, and where all are equal they get
    normal noise. Random keys stay.
    """
    leaves, treedef = jax.tree.flatten(tuple(inputs))
    keys = jax.random.split(jax.random.key(0), max(len(leaves), 1))
    return jax.tree.unflatten(treedef, list(map(_redrawn, leaves, keys)))


def _redrawn(leaf: Any, key: jax.Array) -> Any:
    leaf = jnp.asarray(leaf)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.extended) or not leaf.size:
        return leaf
    first, second = jax.random.split(key)
    drawn = jax.random.choice(first, leaf.ravel(), leaf.shape)
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return drawn
    if bool(jnp.all(leaf == leaf.ravel()[0])):
        return (leaf + jax.random.normal(second, leaf.shape)).astype(leaf.dtype)
    factor = jax.random.uniform(second, leaf.shape, minval=0.5, maxval=1.5)
    return (drawn * factor).astype(leaf.dtype)


def gap_of(
    call: str, reference: Tree, output: Tree, tolerance: float, what: str
) -> float:
    """The largest gap over the leaves of two outputs, relative to each leaf's largest.

    Raises:
      ValueError: outputs of other structure or shapes, or a gap above the tolerance.
    """
    old, treedef = jax.tree.flatten_with_path(reference)
    if str(jax.tree.structure(output)) != str(treedef):
        raise ValueError(
            f"{call}: apply returns {jax.tree.structure(output)}; the model that was "
            f"compacted returns {treedef}"
        )
    worst = 0.0
    for (path, first), second in zip(old, jax.tree.leaves(output), strict=True):
        name = jax.tree_util.keystr(path, simple=True, separator="/") or "output"
        if jnp.shape(first) != jnp.shape(second):
            raise ValueError(
                f"{call}: {name!r} has shape {jnp.shape(second)}; the model that was "
                f"compacted returns {jnp.shape(first)}"
            )
        gap, allowed = _leaf_gap(first, second), allowed_gap(first, tolerance)
        # A gap of NaN is above every tolerance.
        if not gap <= allowed:
            raise ValueError(
                f"{call}: {name!r} differs by {gap:.3g} of its largest entry; allowed: "
                f"{allowed:.3g}. {what}"
            )
        worst = max(worst, gap)
    return worst


def _leaf_gap(first: Any, second: Any) -> float:
    if not jnp.size(first):
        return 0.0
    first, second = (jnp.asarray(x) for x in (first, second))
    kind = "complex64" if jnp.iscomplexobj(first) else "float32"
    if first.dtype not in (jnp.dtype("float64"), jnp.dtype("complex128")):
        first, second = first.astype(kind), second.astype(kind)
    # Equal infinities have no difference; a NaN in both is the model's own.
    is_same = (first == second) | (jnp.isnan(first) & jnp.isnan(second))
    difference = jnp.max(jnp.where(is_same, 0, jnp.abs(first - second)))
    largest = jnp.max(jnp.where(jnp.isfinite(first), jnp.abs(first), 0))
    # Below this outputs are zeros of the dtype.
    return float(difference / jnp.maximum(largest, jnp.finfo(kind).tiny))


def allowed_gap(output: Any, tolerance: float) -> float:
    """The tolerance, or a few units of rounding of a coarser dtype."""
    dtype = jnp.asarray(output).dtype
    if not jnp.issubdtype(dtype, jnp.inexact):
        return tolerance
    rounding = 16 * float(jnp.finfo(dtype).eps)
    return max(tolerance, rounding) if dtype.itemsize < 4 else tolerance


def check_no_nan(call: str, output: Tree) -> None:
    """Raises if the original model returns a NaN."""
    for leaf in jax.tree.leaves(output):
        leaf = jnp.asarray(leaf)
        if jnp.issubdtype(leaf.dtype, jnp.inexact) and bool(jnp.any(jnp.isnan(leaf))):
            raise ValueError(
                f"{call}: apply returns NaN on these inputs, so that nothing can be "
                "compared. A weight normalization divides by the norm of a zero "
                "column; other causes are the inputs or the parameters"
            )
