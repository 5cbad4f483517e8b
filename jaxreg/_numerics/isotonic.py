"""Isotonic regression, sequential and in linear time."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def falling_regression(values: jax.Array) -> jax.Array:
    r"""`argmin_x |x - values|^2` over `x_1 >= x_2 >= ...`, of one axis.

    The answer is constant on blocks, with the mean of each. The loop finds the blocks
    and is not differentiated; the derivative averages tangents over each block.
    """
    begins = _blocks(jax.lax.stop_gradient(values))
    return segment_means(values, begins)


def segment_means(values: jax.Array, begins: jax.Array) -> jax.Array:
    """The mean over each segment, `begins` the place where an entry's one begins.

    Taken twice: the sums about the first mean stay small, and round accordingly.
    """
    count = jnp.maximum(segment_sums(jnp.ones_like(values), begins), 1.0)
    first = jax.lax.stop_gradient(segment_sums(values, begins) / count)
    rest = segment_sums(values - first[begins], begins) / count
    return (first + rest)[begins]


def segment_sums(values: jax.Array, begins: jax.Array) -> jax.Array:
    """The sum over each segment, at the place where it begins; 0 elsewhere."""
    return jax.ops.segment_sum(values, begins, len(values), indices_are_sorted=True)


def _find_blocks(values: jax.Array) -> jax.Array:
    """Where the block of each entry begins, by pooling adjacent violators.

    A block is kept at its last place, as its mean and where it begins. The inner loop
    only reads these arrays and the outer one only writes them, so neither copies them.
    """
    n, dtype = values.shape[0], values.dtype

    def add(here: Any, blocks: Any) -> Any:
        means, begins = blocks

        def violates(block: Any) -> Any:
            begin, mean = block
            return (begin > 0) & (means[jnp.maximum(begin - 1, 0)] <= mean)

        def pool(block: Any) -> Any:
            begin, mean = block
            first = begins[begin - 1]
            share = (begin - first).astype(dtype) / (here + 1 - first).astype(dtype)
            return first, mean + (means[begin - 1] - mean) * share

        alone = (jnp.asarray(here, jnp.int32), values[here])
        begin, mean = jax.lax.while_loop(violates, pool, alone)
        return means.at[here].set(mean), begins.at[here].set(begin)

    empty = (jnp.zeros(n, dtype), jnp.zeros(n, jnp.int32))
    begins = jax.lax.fori_loop(0, n, add, empty)[1]

    def trace(back: Any, carry: Any) -> Any:
        begin, out = carry
        here = n - 1 - back
        begin = jnp.where(here < begin, begins[here], begin)
        return begin, out.at[here].set(begin)

    start = jnp.asarray(n, jnp.int32)
    return jax.lax.fori_loop(0, n, trace, (start, jnp.zeros(n, jnp.int32)))[1]


_blocks = jax.jit(jax.custom_batching.sequential_vmap(_find_blocks))
