"""The largest of many numbers, found by counting and without sorting.

Counts are sums, which leaves that are spread over devices answer without being
gathered.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp


@jax.jit
def largest(scores: Sequence[jax.Array], count: jax.Array) -> list[jax.Array]:
    """Masks of the `count` largest of scores >= 0, taken over all arrays together.

    Of equal scores the first in order stay. The bits of floats >= 0 order as the floats
    do: the threshold is built bit by bit from counts of what reaches it, and then, if
    scores are equal there, the last place that stays. Arrays alike are stacked, so
    that many of them compile as one.
    """
    kinds: dict[object, list[int]] = {}
    for row, score in enumerate(scores):
        kinds.setdefault(jax.typeof(score), []).append(row)
    sizes = (score.size for score in scores)
    offsets = list(itertools.accumulate(sizes, initial=0))
    stacks = [jnp.stack([scores[row] for row in rows]) for rows in kinds.values()]
    starts = [jnp.asarray([offsets[row] for row in rows]) for rows in kinds.values()]
    masks: dict[int, jax.Array] = {}
    found = _largest(stacks, starts, count)
    for rows, kept in zip(kinds.values(), found, strict=True):
        masks |= dict(zip(rows, kept, strict=True))
    return [masks[row] for row in range(len(scores))]


def _largest(
    scores: Sequence[jax.Array], starts: Sequence[jax.Array], count: jax.Array
) -> list[jax.Array]:
    """Masks of stacks of arrays, whose places in the whole begin at `starts`."""
    wide = jnp.result_type(*scores)
    width = jnp.finfo(wide).bits
    kind = jnp.uint32 if width == 32 else jnp.uint64
    keys = [jax.lax.bitcast_convert_type(one.astype(wide), kind) for one in scores]

    def counted(masks: Sequence[jax.Array]) -> jax.Array:
        counts = (jnp.sum(mask, dtype=jnp.int32) for mask in masks)
        return sum(counts, start=jnp.zeros((), jnp.int32))

    def raised(place: jax.Array, threshold: jax.Array) -> jax.Array:
        higher = threshold | (jnp.ones((), kind) << (width - 2 - place).astype(kind))
        is_reached = counted([key >= higher for key in keys]) >= count
        return jnp.where(is_reached, higher, threshold)

    threshold = jax.lax.fori_loop(0, width - 1, raised, jnp.zeros((), kind))
    above = [key > threshold for key in keys]
    level = [key == threshold for key in keys]
    spare = count - counted(above)
    pairs = zip(starts, scores, strict=True)
    places = [_places(start, one.shape) for start, one in pairs]
    depth = max(sum(one.size for one in scores).bit_length(), 1)
    # Zeros stay whether they are counted or not.
    has_tie = (threshold > 0) & (counted(level) > spare)

    def moved(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        bit, end = carry
        later = end | (jnp.ones((), jnp.uint32) << (bit - 1).astype(jnp.uint32))
        fits = [one & (place < later) for one, place in zip(level, places, strict=True)]
        return bit - 1, jnp.where(counted(fits) <= spare, later, end)

    start = jnp.where(has_tie, depth, 0), jnp.zeros((), jnp.uint32)
    _, end = jax.lax.while_loop(lambda carry: carry[0] > 0, moved, start)
    return [
        over | (one & (~has_tie | (place < end)))
        for over, one, place in zip(above, level, places, strict=True)
    ]


def _places(starts: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The place of every entry of stacked arrays in the whole, without a reshape."""
    within = shape[1:]
    place = starts.astype(jnp.uint32).reshape(-1, *[1] * len(within))
    for axis in range(1, len(shape)):
        stride = math.prod(shape[axis + 1 :])
        line = jax.lax.broadcasted_iota(jnp.uint32, (1, *within), axis)
        place = place + jnp.uint32(stride) * line
    return place
