"""Constants that removed units add, and the biases that take them."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxreg.compaction._jaxpr import Equation, Literal, Operand, Program, Variable
from jaxreg.compaction._known import Contraction
from jaxreg.compaction._removal import Stay, masks_of
from jaxreg.compaction._terms import Axes, Term, mask_along

_MOVES = {"reshape", "squeeze", "transpose", "convert_element_type"}
_SUMS = {"add", "add_any", "sub"}
_BROADCASTS = {"broadcast_in_dim", "reshape", "squeeze", "convert_element_type"}


@dataclasses.dataclass(frozen=True, eq=False)
class Bias:
    """The leaf that is added to a contraction or a sum of some, or subtracted from it.

    `behind` leads from the contraction to the sum, `before` from the leaf to it.
    """

    leaf: int
    sign: int
    behind: tuple[Equation, ...]
    before: tuple[Equation, ...]
    output: Variable


def biases(
    program: Program, leaves: int, activations: set[Variable]
) -> dict[Equation, Bias]:
    """The bias behind each contraction that has one, outside loops and branches.

    Products of parameters alone, such as low-rank updates, have none: all of their
    terms are constant, and the update would be merged into what it updates.

    The sum is the only use of the contraction and of the leaf, so that nothing else
    sees what is moved from one to the other; other terms may be added in between.
    """
    uses: dict[Operand, list[Equation | None]] = collections.defaultdict(list)
    makers: dict[Operand, Equation] = {}
    for eqn in program.equations:
        makers.update(dict.fromkeys(eqn.outputs, eqn))
        for operand in eqn.inputs:
            uses[operand].append(eqn)
    for operand in program.outputs:
        uses[operand].append(None)
    leaf_of = {variable: leaf for leaf, variable in enumerate(program.inputs[:leaves])}
    out = {}
    for eqn in program.equations:
        is_contraction = eqn.name in ("dot_general", "conv_general_dilated")
        if is_contraction and not activations.isdisjoint(eqn.inputs):
            bias = _bias(eqn, uses, makers, leaf_of)
            if bias is not None:
                out[eqn] = bias
    return out


def _bias(
    eqn: Equation,
    uses: dict[Operand, list[Equation | None]],
    makers: dict[Operand, Equation],
    leaf_of: dict[Variable, int],
) -> Bias | None:
    behind: list[Equation] = []
    current = eqn.outputs[0]
    while True:
        (user, *more) = uses[current] or [None]
        if user is None or more or user.name not in (*_MOVES, *_SUMS):
            return None
        if user.name in _SUMS:
            first, second = user.inputs
            if user.name == "sub" and first is not current:
                return None
            found = _leaf_behind(second if first is current else first, uses, makers)
            if found is not None and found[0] in leaf_of:
                break
        # A constant passes through a sum with anything else, as other contractions.
        behind.append(user)
        current = user.outputs[0]
    operand, before = found
    moved = (eqn, *behind, *before, user)
    if not _takes(operand.dtype, [each.outputs[0].dtype for each in moved]):
        return None
    sign = -1 if user.name == "sub" else 1
    path = tuple(behind), tuple(reversed(before))
    return Bias(leaf_of[operand], sign, *path, user.outputs[0])


def _leaf_behind(
    operand: Operand,
    uses: dict[Operand, list[Equation | None]],
    makers: dict[Operand, Equation],
) -> tuple[Variable, list[Equation]] | None:
    """The source of a broadcast that nothing else reads, and the way back to it."""
    before: list[Equation] = []
    while len(uses[operand]) == 1 and operand in makers:
        if makers[operand].name not in _BROADCASTS:
            return None
        before.append(makers[operand])
        operand = makers[operand].inputs[0]
    if isinstance(operand, Literal) or len(uses[operand]) > 1:
        return None
    return operand, before


def _takes(leaf: Any, others: Sequence[Any]) -> bool:
    """True if a leaf can hold what is added, which passes through other dtypes.

    Integers would truncate it, and a coarser leaf than the sum would round it.
    """
    if not all(jnp.issubdtype(each, jnp.floating) for each in (leaf, *others)):
        return False
    return bool(jnp.finfo(leaf).eps <= jnp.finfo(others[-1]).eps)


def contribution(
    contraction: Contraction,
    bias: Bias,
    values: Sequence[jax.Array],
    stay: Stay,
    leaf: jax.Array,
    leaf_axes: Axes,
) -> jax.Array | None:
    """What units that go add to the leaf, or None if positions get different numbers.

    Zero padding, for one, gives the borders of an image another constant.
    """

    @jax.jit
    def bounds(left: jax.Array, right: jax.Array) -> tuple[jax.Array, jax.Array]:
        masks = masks_of(stay, 0)
        added = _added(contraction, bias, masks, left, right)
        entries = _moved(bias.before, jnp.arange(leaf.size).reshape(leaf.shape))
        shape = bias.output.shape
        added = jnp.broadcast_to(added, shape).ravel()
        entries = jnp.broadcast_to(entries, shape).ravel()
        high = jnp.full(leaf.size, -jnp.inf).at[entries].max(added)
        low = jnp.full(leaf.size, jnp.inf).at[entries].min(added)
        on = _mask(leaf_axes, masks).ravel()
        high, low = jnp.where(on, high, 0), jnp.where(on, low, 0)
        # Positions of one sum differ by rounding alone.
        eps = float(jnp.finfo(added.dtype).eps)
        rounding = 4 * eps * jnp.max(jnp.abs(added), initial=0)
        is_even = jnp.all(high - low <= rounding)
        return bias.sign * high.reshape(leaf.shape), is_even

    added, is_even = bounds(*values)
    return added if bool(is_even) else None


@jax.jit
def raised(leaf: jax.Array, added: jax.Array) -> jax.Array:
    """The leaf with what units that go add to it, rounded once."""
    wide = leaf.astype(jnp.promote_types(leaf.dtype, "float32"))
    return (wide + added).astype(leaf.dtype)


def _added(
    contraction: Contraction, bias: Bias, masks: Any, left: jax.Array, right: jax.Array
) -> jax.Array:
    """The contraction over units that go, as it arrives at the sum with the bias."""
    eqn, stays = contraction.eqn, _mask(contraction.contracted, masks)
    left = jnp.where(_along_operand(eqn, stays, left.ndim), 0, left)
    # At least float32, whatever the model computes in.
    wide = jnp.promote_types(bias.output.dtype, "float32")
    changed = {
        "preferred_element_type": wide,
        "precision": (jax.lax.Precision.HIGHEST,) * 2,
    }
    left, right = left.astype(wide), right.astype(wide)
    return _moved(bias.behind, eqn.bind(left, right, **changed)[0])


def _mask(terms: Sequence[Term], masks: Any) -> jax.Array:
    """Per position along several axes, True if all of its units stay."""
    on = jnp.ones((), bool)
    for term in terms:
        along = jnp.asarray(mask_along(term, masks), bool)
        on = jnp.expand_dims(on, -1) & along.reshape((1,) * on.ndim + (-1,))
    return on


def _along_operand(eqn: Equation, stays: jax.Array, ndim: int) -> jax.Array:
    """A mask of contracted positions, shaped to fit the left operand."""
    if eqn.name == "dot_general":
        axes = eqn.params["dimension_numbers"][0][0]
        order = sorted(range(len(axes)), key=lambda i: axes[i])
        stays = jnp.transpose(stays, order)
        return jnp.expand_dims(stays, [a for a in range(ndim) if a not in axes])
    axis = eqn.params["dimension_numbers"].lhs_spec[1]
    # The same inner features of every group.
    stays = jnp.tile(stays, eqn.params["feature_group_count"])
    return jnp.expand_dims(stays, [a for a in range(ndim) if a != axis])


def _moved(equations: Sequence[Equation], array: jax.Array) -> jax.Array:
    for eqn in equations:
        if eqn.name not in ("convert_element_type", *_SUMS):
            (array,) = eqn.bind(array)
    return array
