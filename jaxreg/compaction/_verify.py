"""Compares two models on inputs: the gap of their outputs, and what it may be."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp

from jaxreg._core.penalty import Tree
from jaxreg.compaction._cut import whole


@jax.jit
def fresh_inputs(inputs: tuple[Tree, ...]) -> tuple[Tree, ...]:
    """Other inputs of the same shapes and dtypes, drawn from the examples' entries.

    Entries change places; floats also change in size, and where all are equal they get
    noise. Random keys stay.
    """

    def redrawn(leaf: Any) -> Any:
        leaf = jnp.asarray(leaf)
        sharding = jax.typeof(leaf).sharding
        out = _redrawn(whole(leaf))
        # On an explicit mesh the sharding is a part of the type.
        return jax.sharding.reshard(out, sharding) if any(sharding.spec) else out

    return jax.tree.map(redrawn, inputs)


def _redrawn(leaf: jax.Array) -> jax.Array:
    if jnp.issubdtype(leaf.dtype, jax.dtypes.extended) or not leaf.size:
        return leaf
    # A hash of the position: compiling a generator takes longer than all the rest.
    position = jnp.arange(leaf.size, dtype="float32").reshape(leaf.shape)
    first, second = (
        jnp.abs(jnp.sin(position * rate) * 43758.5) % 1 for rate in (12.9898, 78.233)
    )
    index = jnp.minimum((first * leaf.size).astype("int32"), leaf.size - 1)
    drawn = leaf.ravel()[index]
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return drawn
    is_constant = jnp.all(drawn == drawn.ravel()[0])
    noise = leaf + 4 * second - 2
    return jnp.where(is_constant, noise, drawn * (second + 0.5)).astype(leaf.dtype)


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
    new = jax.tree.leaves(output)
    for (path, first), second in zip(old, new, strict=True):
        if jnp.shape(first) != jnp.shape(second):
            raise ValueError(
                f"{call}: {_name(path)!r} has shape {jnp.shape(second)}; the model "
                f"that was compacted returns {jnp.shape(first)}"
            )
    gaps = jax.device_get(_leaf_gaps([leaf for _, leaf in old], new))
    for (path, _), gap in zip(old, gaps, strict=True):
        # A gap of NaN is above every tolerance.
        if not gap <= tolerance:
            raise ValueError(
                f"{call}: {_name(path)!r} differs by {gap:.3g} of its largest entry; "
                f"allowed: {tolerance:.3g}. {what}"
            )
    return float(max(gaps, default=0.0))


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/") or "output"


@jax.jit
def _leaf_gaps(old: list[Any], new: list[Any]) -> list[jax.Array]:
    return list(map(_leaf_gap, old, new))


def _leaf_gap(first: Any, second: Any) -> jax.Array:
    if jnp.issubdtype(jnp.result_type(first), jax.dtypes.prng_key):
        first, second = map(jax.random.key_data, (first, second))
    kind = jnp.promote_types(jnp.result_type(first, second), "float32")
    first, second = (jnp.asarray(x).astype(kind) for x in (first, second))
    # Equal infinities have no difference; a NaN in both is the model's own.
    is_same = (first == second) | (jnp.isnan(first) & jnp.isnan(second))
    difference = jnp.where(is_same, 0, jnp.abs(first - second))
    size = jnp.where(jnp.isfinite(first), jnp.abs(first), 0)
    # Below this outputs are zeros of the dtype.
    largest = jnp.maximum(jnp.max(size, initial=0), jnp.finfo(kind).tiny)
    return jnp.max(difference, initial=0) / largest


def allowed_gap(dtypes: Iterable[Any], tolerance: float) -> float:
    """The tolerance, or a few units of rounding of the coarsest 16-bit float."""
    floats = [dtype for dtype in dtypes if jnp.issubdtype(dtype, jnp.inexact)]
    coarse = [jnp.finfo(each).eps for each in floats if each.itemsize < 4]
    return max(tolerance, 16 * float(max(coarse, default=0.0)))


def check_no_nan(call: str, output: Tree) -> None:
    """Raises if the original model returns a NaN."""
    if bool(_has_nan(jax.tree.leaves(output))):
        raise ValueError(
            f"{call}: apply returns NaN on these inputs, so that nothing can be "
            "compared. A weight normalization divides by the norm of a zero column; "
            "other causes are the inputs or the parameters"
        )


@jax.jit
def _has_nan(leaves: list[Any]) -> jax.Array:
    # What is not equal to itself is a NaN, in every dtype.
    return jnp.any(jnp.stack([jnp.any(leaf != leaf) for leaf in leaves]))
