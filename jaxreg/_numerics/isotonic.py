"""Isotonic regression, sequential and in linear time."""

from __future__ import annotations

import jax
import jax.numpy as jnp

_Blocks = tuple[jax.Array, jax.Array]
"""Means of blocks and where they begin, each stored at the last entry of its block."""
_Block = tuple[jax.Array, jax.Array]
"""Begin and mean of one block."""
_Begins = tuple[jax.Array, jax.Array]
"""Begin of the current block, and of the block of each entry."""


def falling_regression(values: jax.Array) -> jax.Array:
    r"""`argmin_x |x - values|^2` subject to `x_1 >= x_2 >= ...`, for one axis.

    The solution is constant on blocks, with the mean of each. The loop finds the blocks
    and is not differentiated; the derivative averages tangents over each block.
    """
    begins = _block_begins(jax.lax.stop_gradient(values))
    return segment_means(values, begins)


def segment_means(values: jax.Array, begins: jax.Array) -> jax.Array:
    """The mean of its segment for each entry; `begins` is where that segment begins.

    The mean is computed twice: sums of deviations from the first mean are small, and so
    is their rounding.
    """
    count = jnp.maximum(segment_sums(jnp.ones_like(values), begins), 1.0)
    mean = jax.lax.stop_gradient(segment_sums(values, begins) / count)
    correction = segment_sums(values - mean[begins], begins) / count
    return (mean + correction)[begins]


def segment_sums(values: jax.Array, begins: jax.Array) -> jax.Array:
    """The sum of each segment, at the index where it begins; 0 elsewhere."""
    return jax.ops.segment_sum(values, begins, len(values), indices_are_sorted=True)


def _find_blocks(values: jax.Array) -> jax.Array:
    """The index at which the block of each entry begins, by pooling adjacent violators.

    The inner loop only reads the arrays of blocks and the outer one only writes them,
    so that XLA copies neither.
    """
    n, dtype = values.shape[0], values.dtype

    def add(here: jax.Array, blocks: _Blocks) -> _Blocks:
        means, begins = blocks

        def violates(block: _Block) -> jax.Array:
            begin, mean = block
            return (begin > 0) & (means[jnp.maximum(begin - 1, 0)] <= mean)

        def pool(block: _Block) -> _Block:
            begin, mean = block
            first = begins[begin - 1]
            share = (begin - first).astype(dtype) / (here + 1 - first).astype(dtype)
            return first, mean + (means[begin - 1] - mean) * share

        single = (jnp.asarray(here, jnp.int32), values[here])
        begin, mean = jax.lax.while_loop(violates, pool, single)
        return means.at[here].set(mean), begins.at[here].set(begin)

    empty = (jnp.zeros(n, dtype), jnp.zeros(n, jnp.int32))
    begins = jax.lax.fori_loop(0, n, add, empty)[1]

    def trace(back: jax.Array, carry: _Begins) -> _Begins:
        begin, out = carry
        here = n - 1 - back
        begin = jnp.where(here < begin, begins[here], begin)
        return begin, out.at[here].set(begin)

    start = jnp.asarray(n, jnp.int32)
    return jax.lax.fori_loop(0, n, trace, (start, jnp.zeros(n, jnp.int32)))[1]


_block_begins = jax.jit(jax.custom_batching.sequential_vmap(_find_blocks))
