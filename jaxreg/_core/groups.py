"""Groups of entries of an array.

`group_axis` INDEXES the groups: `group_axis=0` of a `(784, 300)` kernel is one group
per input feature, `group_axis=1` one per neuron; `group_axis=(0, 3)` of a
`(layers, height, width, filters)` stack is one per filter of each layer;
`group_axis=Blocks((None, 64))` of a fused `(inputs, 8 * 64)` projection is one per
head, `Blocks((16, 16))` one per tile. `None`, where a penalty allows it, makes the
whole leaf one group.

A leaf is first reshaped to its `view`, in which whole axes index the groups.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import numbers
from typing import TypeGuard

import jax
import jax.numpy as jnp

from jaxreg._core.messages import shown


@dataclasses.dataclass(frozen=True)
class Blocks:
    """A `group_axis` whose groups are blocks of one shape.

    Args:
      shape: the length of a block along each axis of the leaf; None takes a whole axis.

    Raises:
      TypeError: `shape` is not a tuple of ints >= 1 and Nones, or is empty.

    >>> import jax.numpy as jnp, jaxreg
    >>> heads = jaxreg.GroupLasso(1.0, group_axis=jaxreg.Blocks((None, 2)))
    >>> heads.prox(jnp.array([[3.0, 3.0, 0.5, -0.5]]), step=1.0)
    Array([[2., 2., 0., 0.]], dtype=float32)
    """

    shape: tuple[int | None, ...]

    def __post_init__(self) -> None:
        is_shape = isinstance(self.shape, tuple) and self.shape
        lengths = self.shape if is_shape else (0,)
        for length in lengths:
            if length is not None and not (is_int(length) and length >= 1):
                raise TypeError(
                    f"Blocks({shown(self.shape)}); allowed: a tuple with the length of "
                    "a block along each axis, None for a whole axis, as Blocks((None, "
                    "4))"
                )


GroupAxis = int | tuple[int, ...] | Blocks
"""The axis or axes that index the groups of a leaf, or its blocks."""


def check_group_axis(group_axis: GroupAxis | None) -> None:
    """Raises if `group_axis` is not an int, a tuple of ints or `Blocks`."""
    if group_axis is None:
        raise TypeError(_not_axes(group_axis))
    indexing(group_axis)


def indexing(group_axis: GroupAxis | None) -> tuple[int, ...]:
    """The axes that index the groups in the view of a leaf; () if it is one group."""
    if group_axis is None:
        return ()
    if isinstance(group_axis, Blocks):
        return tuple(range(0, 2 * len(group_axis.shape), 2))
    axes = group_axis if isinstance(group_axis, tuple) else (group_axis,)
    if not axes or not all(map(is_int, axes)):
        raise TypeError(_not_axes(group_axis))
    return tuple(int(axis) for axis in axes)


def _not_axes(group_axis: object) -> str:
    return (
        f"group_axis is {shown(group_axis)}; allowed: an int, or a tuple of ints, "
        "the axes that index the groups, or jaxreg.Blocks"
    )


def view(group_axis: GroupAxis | None, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in which the axes of `indexing` index the groups."""
    if not isinstance(group_axis, Blocks):
        return shape
    lengths = [block or n for block, n in zip(group_axis.shape, shape, strict=True)]
    pairs = zip(shape, lengths, strict=True)
    return tuple(part for n, block in pairs for part in (n // max(block, 1), block))


def is_int(axis: object) -> TypeGuard[int]:
    """True for an int of Python or NumPy that is not a bool."""
    return isinstance(axis, numbers.Integral) and not isinstance(axis, bool)


def check_count(name: str, count: object, least: int = 0) -> None:
    """Raises if a number of axes or the like is not an int >= `least`."""
    allowed = f"allowed: an int >= {least}"
    if not is_int(count):
        raise TypeError(f"{name} is {shown(count)}; {allowed}")
    if int(count) < least:
        raise ValueError(f"{name} is {count}; {allowed}")


def within_axes(axes: tuple[int, ...], ndim: int) -> tuple[int, ...]:
    """The axes along which the members of one group lie."""
    indexed = {axis % ndim for axis in axes} if ndim else set()
    return tuple(axis for axis in range(ndim) if axis not in indexed)


def refusal(group_axis: GroupAxis | None, shape: tuple[int, ...]) -> str | None:
    """The reason why an array of this shape does not split into groups, or None."""
    ndim = len(shape)
    if group_axis is None:
        return None
    if isinstance(group_axis, Blocks):
        pairs = list(zip(group_axis.shape, shape, strict=False))
        if len(group_axis.shape) != ndim or any(b and n % b for b, n in pairs):
            return f"does not split evenly into blocks of shape {group_axis.shape}"
        return None
    axes = indexing(group_axis)
    if ndim < 2:
        return (
            "has fewer than two axes, so a group would be a single entry; "
            "put L1 on it or leave it free"
        )
    if any(not -ndim <= axis < ndim for axis in axes):
        return f"has axes 0 to {ndim - 1}, and group_axis is {axes}"
    if len({axis % ndim for axis in axes}) < len(axes):
        return f"has axes 0 to {ndim - 1}, and group_axis {axes} names one twice"
    if not within_axes(axes, ndim):
        return f"has no axis left within a group of group_axis {axes}; put L1 on it"
    return None


def count(axes: tuple[int, ...], shape: tuple[int, ...]) -> int:
    """The number of groups in an array of this shape."""
    return math.prod(shape[axis] for axis in axes)


def size(axes: tuple[int, ...], shape: tuple[int, ...]) -> int:
    """The number of entries in one group."""
    return math.prod(shape[axis] for axis in within_axes(axes, len(shape)))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def root_mean_square(leaf: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """RMS per group, kept as axes of length 1; its gradient at a zero group is 0.

    Accurate at every scale: entries are first divided by the largest of their group.
    """
    within = within_axes(axes, leaf.ndim)
    if not leaf.size:
        return jnp.sum(leaf, axis=within, keepdims=True)
    largest = jnp.max(jnp.abs(leaf), axis=within, keepdims=True)
    # XLA may multiply by 1 / scale, which must be neither infinite nor subnormal. If
    # the leaf is a quotient, XLA may divide by the product, which must not be 0.
    bounds = jnp.finfo(leaf.dtype)
    scale = jnp.where(largest > 0, largest.clip(bounds.tiny, 1 / bounds.tiny), 1.0)
    return scale * jnp.sqrt(mean_square(leaf / scale, axes))


@root_mean_square.defjvp
def _root_mean_square_jvp(
    axes: tuple[int, ...], primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
    (leaf,), (tangent,) = primals, tangents
    rms = root_mean_square(leaf, axes)
    unit = leaf / jnp.where(rms > 0, rms, 1.0)
    within = within_axes(axes, leaf.ndim)
    return rms, jnp.mean(unit * tangent, axis=within, keepdims=True)


def fast_root_mean_square(leaf: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Unscaled RMS: one pass, but underflows below 1e-19 and overflows above 1e19."""
    square = mean_square(leaf, axes)
    is_zero = square == 0
    return jnp.where(is_zero, 0.0, jnp.sqrt(jnp.where(is_zero, 1.0, square)))


def clipped_root(square: jax.Array) -> jax.Array:
    """The root of a mean square, clipped to a normal number: 1e-19 to 1e19 in float32.

    Outside this range, derivatives with respect to step and strength are zero.
    """
    bounds = jnp.finfo(square.dtype)
    return jnp.sqrt(square.clip(bounds.tiny, bounds.max))


def mean_square(leaf: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Mean square per group, kept as axes of length 1, in one pass."""
    return jnp.mean(leaf * leaf, axis=within_axes(axes, leaf.ndim), keepdims=True)
