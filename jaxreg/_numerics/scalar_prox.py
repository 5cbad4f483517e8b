"""What the proxes of several elementwise penalties share."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxreg._core.leafwise import magnitude
from jaxreg._core.penalty import Number


def with_slope_of_root(
    root: jax.Array, residual: jax.Array, slope: jax.Array
) -> jax.Array:
    """The root as it is, with its derivative from the implicit function theorem.

    `residual` is the equation at the root, with `root` behind a stop_gradient, and
    `slope` > 0 its derivative by the root.
    """
    still = jax.lax.stop_gradient
    rise = jnp.maximum(slope, jnp.finfo(root.dtype).eps)
    return still(root) - (residual - still(residual)) / still(rise)


def outside(edge: jax.Array, latent: jax.Array, leaf: jax.Array) -> jax.Array:
    """The latent, moved beyond a dead zone up to `edge` wherever `leaf` is not 0."""
    # The edge rounds in another way where another jit computes it.
    just_beyond = edge * (1 + 16 * jnp.finfo(leaf.dtype).eps)
    return jnp.sign(leaf) * jnp.maximum(jnp.abs(latent), just_beyond)


def shrink_until_flat(
    leaf: jax.Array, threshold: jax.Array, knee: Number, knot: Number
) -> jax.Array:
    """The prox of a slope that is `threshold` up to `knee` and falls to 0 at `knot`.

    `knee = 0` is MCP, `knee = knot` the capped L1 norm, anything between is SCAD.
    Beyond `threshold = knot - knee` two minimisers compete, and equal costs put the
    switch at `flat_from`.
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
    """The size from which entries stay as they are, `threshold >= knot - knee`."""
    reach = jnp.asarray(knot + knee)
    from_zero = jnp.sqrt(threshold) * jnp.sqrt(reach)
    return jnp.where(threshold <= reach, (reach + threshold) / 2, from_zero)
