"""Formulas shared by the proxes of several elementwise penalties."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxreg._core.leafwise import magnitude
from jaxreg._core.penalty import Number, Tree

_Numbers = tuple[Tree, ...]
"""The size of an entry and what the prox depends on besides."""


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def root_of(
    find: Callable[..., jax.Array],
    residual: Callable[..., jax.Array],
    numbers: _Numbers,
) -> jax.Array:
    """Returns `find(*numbers)`, a root `x` of `residual(x, *numbers) = 0`.

    Its derivatives of all orders are those of the implicit function theorem,
    `dx/dp = -(df/dp) / (df/dx)` with `df/dx > 0`.
    """
    del residual
    return find(*numbers)


@root_of.defjvp
def _root_of_jvp(
    find: Callable[..., jax.Array],
    residual: Callable[..., jax.Array],
    primals: tuple[_Numbers],
    tangents: tuple[_Numbers],
) -> tuple[jax.Array, jax.Array]:
    (numbers,), (moves,) = primals, tangents
    root = root_of(find, residual, numbers)
    one = jnp.ones_like(root)
    slope = jax.jvp(lambda x: residual(x, *numbers), (root,), (one,))[1]
    change = jax.jvp(lambda *numbers: residual(root, *numbers), numbers, moves)[1]
    slope = jnp.maximum(slope, jnp.finfo(root.dtype).eps)
    return root, (-change / slope).astype(root.dtype)


def outside(edge: jax.Array, latent: jax.Array, leaf: jax.Array) -> jax.Array:
    """Moves the latent beyond a dead zone that ends at `edge`, where `leaf` is not 0.

    Returns `sign(leaf) max(|latent|, edge)`, and 0 where `leaf` is 0.
    """
    # Another jit may round the edge differently, by a few units.
    just_beyond = edge * (1 + 16 * jnp.finfo(leaf.dtype).eps)
    return jnp.sign(leaf) * jnp.maximum(jnp.abs(latent), just_beyond)


def shrink_until_flat(
    leaf: jax.Array, threshold: jax.Array, knee: Number, knot: Number
) -> jax.Array:
    """The prox of a penalty whose slope falls linearly from `knee` to 0 at `knot`.

    Times the step, the slope is `threshold` up to `knee`: 0 is MCP, `knee = knot` the
    capped L1 norm, and anything between is SCAD. With `threshold >= knot - knee` there
    are two local minimisers, and the prox jumps between them at `flat_from`.
    """
    size, fall = magnitude(leaf), knot - knee
    is_smooth = threshold < fall
    gap = jnp.where(is_smooth, fall - threshold, 1.0)
    share = jnp.where(is_smooth, jnp.clip((knot - size) / gap, 0.0, 1.0), 0.0)
    smooth = jnp.where(is_smooth, threshold, 0.0) * share
    jump = jnp.where(size > flat_from(threshold, knee, knot), 0.0, threshold)
    pull = jnp.where(is_smooth, smooth, jump)
    return leaf - jnp.clip(leaf, -pull, pull)


def dead_until(threshold: jax.Array, knee: Number, knot: Number) -> jax.Array:
    """The size up to which `shrink_until_flat` gives 0."""
    return jnp.minimum(threshold, flat_from(threshold, knee, knot))


def flat_from(threshold: jax.Array, knee: Number, knot: Number) -> jax.Array:
    """The size above which entries stay as they are, for `threshold >= knot - knee`.

    It is where both local minimisers have the same objective: `(knee + knot +
    threshold) / 2`, or `sqrt(threshold (knee + knot))` if the other minimiser is 0.
    """
    reach = jnp.asarray(knot + knee)
    from_zero = jnp.sqrt(threshold) * jnp.sqrt(reach)
    return jnp.where(threshold <= reach, (reach + threshold) / 2, from_zero)
