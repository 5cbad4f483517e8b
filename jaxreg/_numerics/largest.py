"""Selection of the largest of many numbers, by counting and without sorting.

Counts are sums, which leaves sharded over devices answer without being gathered.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxreg._core.alike import kinds_of, per_array, stacked, unstacked


@jax.jit
def largest(scores: Sequence[jax.Array], count: jax.Array) -> list[jax.Array]:
    """Masks of the `count` largest of scores >= 0, taken over all arrays together.

    Among equal scores the first in order are selected. The bits of floats >= 0 order as
    the floats do: the threshold is built bit by bit from counts of scores that reach
    it, and then, if several equal it, so is the last index selected among them.
    """
    kinds = kinds_of(scores)
    masks = largest_of_stacks(stacked(scores, kinds), kinds, count)
    return unstacked(masks, kinds)


def largest_of_each(stack: jax.Array, count: int) -> jax.Array:
    """Masks of the `count` largest of each array of a stack, the first among equals."""
    axes = per_array(stack)
    if not stack.size:
        return stack > 0

    def add_next(_: int, mask: jax.Array) -> jax.Array:
        # Of the whole stack, so that it is sharded as the stack is, without a gather.
        index = _flat_indices(jnp.zeros(len(stack)), stack.shape)
        rest = jnp.where(mask, -jnp.inf, stack)
        is_top = ~mask & (rest == jnp.max(rest, axes, keepdims=True))
        tops = jnp.where(is_top, index, jnp.uint32(2**32 - 1))
        return mask | (is_top & (index == jnp.min(tops, axes, keepdims=True)))

    none = jnp.zeros_like(stack, bool)
    most = min(count, math.prod(stack.shape[1:]))
    return jax.lax.fori_loop(0, most, add_next, none)


def largest_of_stacks(
    stacks: Sequence[jax.Array], kinds: list[list[int]], count: jax.Array
) -> list[jax.Array]:
    """The masks of `largest` for the stacks of arrays of one kind."""
    sizes = {
        row: math.prod(stack.shape[1:])
        for rows, stack in zip(kinds, stacks, strict=True)
        for row in rows
    }
    ordered = (sizes[row] for row in range(len(sizes)))
    offsets = list(itertools.accumulate(ordered, initial=0))
    starts = [jnp.asarray([offsets[row] for row in rows]) for rows in kinds]
    return _largest(stacks, starts, count)


def total_count(counts: Sequence[jax.Array]) -> jax.Array:
    """The sum over all arrays of counts, or of masks, as an int32."""
    sums = (jnp.sum(each, dtype=jnp.int32) for each in counts)
    return sum(sums, start=jnp.zeros((), jnp.int32))


def _largest(
    stacks: Sequence[jax.Array], starts: Sequence[jax.Array], count: jax.Array
) -> list[jax.Array]:
    """Masks for stacks of arrays; `starts` are the indices at which arrays begin."""
    wide = jnp.result_type(*stacks)
    width = jnp.finfo(wide).bits
    kind = jnp.uint32 if width == 32 else jnp.uint64
    keys = [jax.lax.bitcast_convert_type(s.astype(wide), kind) for s in stacks]

    def set_bit(index: jax.Array, threshold: jax.Array) -> jax.Array:
        higher = threshold | (
            jnp.ones((), kind) << jnp.asarray(width - 2 - index, kind)
        )
        is_reached = total_count([key >= higher for key in keys]) >= count
        return jnp.where(is_reached, higher, threshold)

    # The bit of the sign is 0.
    threshold = jax.lax.fori_loop(0, width - 1, set_bit, jnp.zeros((), kind))
    above = [key > threshold for key in keys]
    ties = [key == threshold for key in keys]
    spare = count - total_count(above)
    pairs = zip(starts, stacks, strict=True)
    indices = [_flat_indices(start, stack.shape) for start, stack in pairs]
    index_bits = max(sum(stack.size for stack in stacks).bit_length(), 1)
    # Zeros are selected whether they are counted or not.
    has_tie = (threshold > 0) & (total_count(ties) > spare)

    def set_end_bit(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        bit, end = carry
        later = end | (jnp.ones((), jnp.uint32) << (bit - 1).astype(jnp.uint32))
        before = [i < later for i in indices]
        fits = [tie & early for tie, early in zip(ties, before, strict=True)]
        return bit - 1, jnp.where(total_count(fits) <= spare, later, end)

    start = jnp.where(has_tie, index_bits, 0), jnp.zeros((), jnp.uint32)
    _, end = jax.lax.while_loop(lambda carry: carry[0] > 0, set_end_bit, start)
    return [
        over | (tie & (~has_tie | (index < end)))
        for over, tie, index in zip(above, ties, indices, strict=True)
    ]


def _flat_indices(starts: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The index of each entry among those of all arrays, without a reshape."""
    entry_shape = shape[1:]
    index = starts.astype(jnp.uint32).reshape(-1, *[1] * len(entry_shape))
    for axis in range(1, len(shape)):
        stride = math.prod(shape[axis + 1 :])
        line = jax.lax.broadcasted_iota(jnp.uint32, (1, *entry_shape), axis)
        index = index + jnp.uint32(stride) * line
    return index
