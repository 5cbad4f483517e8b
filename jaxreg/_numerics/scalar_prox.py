"""Formulas shared by the proxes of several elementwise penalties."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core.leafwise import magnitude
from jaxreg._core.penalty import Number


def with_slope_of_root(
    root: jax.Array, residual: jax.Array, slope: jax.Array
) -> jax.Array:
    """Returns `root`, with its derivative from the implicit function theorem.

    For a root of `f(x; p) = 0` it is `dx/dp = -(df/dp) / (df/dx)`. `residual` is `f` at
    the root, with `root` behind a stop_gradient, and `slope` > 0 is `df/dx` there.
    """
    constant = jax.lax.stop_gradient
    slope = jnp.maximum(slope, jnp.finfo(root.dtype).eps)
    return constant(root) - (residual - constant(residual)) / constant(slope)


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
