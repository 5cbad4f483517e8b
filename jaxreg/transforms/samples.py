"""Which slices of a leaf `regularize` compares to notice edited weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxreg._core.leafwise import Elementwise
from jaxreg._core.penalty import Number, Penalty, wide_dtype
from jaxreg._core.shards import count

Cut = Callable[[jax.Array], jax.Array]

# The check for edited weights reads small leaves whole, and of a large one a slice in
# 150, but at least 16 and at most 64: less than a hundredth of what a step reads.
_WHOLE = 2**18
_SHARE, _FEWEST, _MOST = 150, 16, 64


def cut_of(penalty: Penalty, leaf: jax.Array) -> Cut:
    """Takes a few slices whose prox is theirs alone, or all of a small leaf."""
    axis = penalty.independent_axis(leaf.shape)
    if axis is None or leaf.size <= _WHOLE:
        return lambda whole: whole
    sharding = jax.typeof(leaf).sharding
    length, shards = leaf.shape[axis], count(sharding.mesh, sharding.spec[axis])
    wanted = min(max(length // _SHARE, _FEWEST), _MOST)
    # As many for each shard: explicit sharding slices along a sharded axis only so.
    slices = shards * -(-wanted // shards)
    if length <= slices:
        return lambda whole: whole
    stride = _prime_up_to(length // slices)
    end = stride * slices
    return lambda whole: jax.lax.slice_in_dim(whole, 0, end, stride, axis)


def is_edited(
    penalty: Penalty, leaf: jax.Array, cut: Cut, prox: jax.Array, width: Number
) -> jax.Array:
    """Whether the cut of a leaf differs from the prox that the last update left there.

    For each entry where entries are compared alone, else for the leaf. Coupled entries
    round as the largest does.
    """
    seen = cut(leaf).astype(prox.dtype)
    size, slack = jnp.abs(prox), 4 * jnp.finfo(leaf.dtype).eps
    if penalty.is_coupled(leaf.shape):
        size = jnp.max(size, initial=0.0)
    slack += 4 * penalty.prox_tolerance
    is_near = jnp.abs(seen - prox) <= slack * (size + width)
    # Negated, so that a latent that is NaN starts from repaired weights.
    return ~(is_near if _is_alone(penalty, leaf) else jnp.all(is_near))


def _is_alone(penalty: Penalty, leaf: jax.Array) -> bool:
    """Whether a leaf is compared entry by entry, each with a latent of its own.

    Not in half precision: it rounds so far that small edits among large ones would be
    undone.
    """
    is_small = 0 < leaf.size <= _WHOLE and leaf.ndim > 0
    return (
        is_small and isinstance(penalty, Elementwise) and wide_dtype(leaf) == leaf.dtype
    )


def _prime_up_to(limit: int) -> int:
    """The largest prime: a stride that does not follow the rows of an image."""
    candidates = range(limit, 1, -1)
    primes = (n for n in candidates if all(n % d for d in range(2, math.isqrt(n) + 1)))
    return next(primes, 1)
