"""Layouts: the split of a penalty's leaves into units.

A unit is what a prox may zero as a whole: an entry, a group or, in a custom layout,
entries of several leaves. A layout also gives the shape in which a penalty sees a leaf,
the leaves it cannot take, and the axes that cannot be sharded.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxreg._core import groups
from jaxreg._core.shards import reshaped

Shape = tuple[int, ...]
"""The length of an array along each axis."""


class Layout:
    """The units of the leaves that one rule gives to a penalty.

    Methods on lists take all leaves of a rule together. A layout whose units lie within
    leaves overrides `leaf_sizes` and `leaf_spread`; if they span leaves, it overrides
    the methods on lists.
    """

    stacked: int = 0
    """The number of leading axes of a view along which independent layers lie."""

    spans_leaves: ClassVar[bool] = False
    """True if a unit has entries in several leaves."""

    @property
    def as_groups(self) -> Groups | None:
        """The groups of a `group_axis` that its units are, or None."""
        return None

    def refusal(self, shape: Shape) -> str | None:
        """The reason why a leaf of this shape cannot carry the penalty, or None."""
        del shape
        return None

    def view(self, shape: Shape) -> Shape:
        """The shape in which the penalty sees a leaf."""
        return shape

    def whole_axes(self, shape: Shape) -> Sequence[int]:
        """Axes along which the prox sorts or runs in order: they cannot be sharded."""
        del shape
        return ()

    def coupled_axes(self, ndim: int) -> Sequence[int]:
        """The axes of a view along which the prox may couple entries."""
        return range(self.stacked, ndim)

    def always_whole_axes(self, shape: Shape) -> Sequence[int]:
        """Those of the `whole_axes` that the value needs whole too."""
        del shape
        return ()

    def step_varies(self, shape: Shape, step_shape: Shape) -> bool:
        """True if a step of this shape differs among entries that the prox couples."""
        del shape
        return math.prod(step_shape) > 1

    def unit_count(self, shape: Shape) -> int | None:
        """The number of units with entries in a leaf; None if each entry is one."""
        del shape
        return None

    def leaf_sizes(self, leaf: jax.Array) -> jax.Array:
        """The size of every unit of one leaf: its root mean square, 0 if all is 0."""
        return jnp.abs(leaf)

    def leaf_spread(self, units: jax.Array, shape: Shape) -> jax.Array:
        """Broadcasts one number per unit to the entries of a leaf of this shape."""
        return jnp.broadcast_to(units, shape)

    def unit_sizes(self, leaves: Sequence[jax.Array]) -> list[jax.Array]:
        """The sizes of all units, each unit once, in any number of arrays."""
        return list(map(self.leaf_sizes, leaves))

    def spread(
        self, units: Sequence[jax.Array], shapes: Sequence[Shape]
    ) -> list[jax.Array]:
        """Broadcasts one number per unit, in the arrays of `unit_sizes`, to leaves."""
        return list(map(self.leaf_spread, units, shapes))

    def dead_in_leaves(self, leaves: Sequence[jax.Array]) -> list[jax.Array] | None:
        """Per leaf, the number of its units that are all zero; None for entries."""
        if any(self.unit_count(jnp.shape(leaf)) is None for leaf in leaves):
            return None
        return [jnp.sum(sizes == 0) for sizes in self.unit_sizes(leaves)]

    def is_dead(self, leaves: Sequence[jax.Array]) -> list[jax.Array]:
        """Per entry, True if all of its unit is exactly zero."""
        dead = [sizes == 0 for sizes in self.unit_sizes(leaves)]
        return self.spread(dead, [leaf.shape for leaf in leaves])


@dataclasses.dataclass(frozen=True)
class Entries(Layout):
    """Every entry is a unit; `is_whole` if the prox needs leaves that are not sharded.

    A prox that couples the entries of a layer takes one step per leaf.
    """

    is_whole: bool = False
    stacked: int = 0

    def refusal(self, shape: Shape) -> str | None:
        if 0 < self.stacked >= len(shape):
            return _no_layers(len(shape), self.stacked)
        return None

    def whole_axes(self, shape: Shape) -> Sequence[int]:
        return range(len(shape)) if self.is_whole else ()


@dataclasses.dataclass(frozen=True)
class Groups(Layout):
    """The groups that `group_axis` indexes; None makes each leaf one group.

    Layers stacked along leading axes have groups of their own if these axes are named
    too: `group_axis=(0, 2)` on kernels `(layers, inputs, outputs)`.
    """

    group_axis: groups.GroupAxis | None

    @property
    def as_groups(self) -> Groups:
        return self

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes that index the groups in the view of a leaf."""
        return groups.indexing(self.group_axis)

    def refusal(self, shape: Shape) -> str | None:
        return groups.refusal(self.group_axis, shape)

    def view(self, shape: Shape) -> Shape:
        return groups.view(self.group_axis, shape)

    def coupled_axes(self, ndim: int) -> Sequence[int]:
        return groups.within_axes(self.axes, ndim)

    def step_varies(self, shape: Shape, step_shape: Shape) -> bool:
        if self.view(shape) != shape:
            return math.prod(step_shape) > 1
        return not self.is_uniform(step_shape, len(shape))

    def is_uniform(self, step_shape: Shape, ndim: int) -> bool:
        """True if a step of this shape is constant within each group."""
        lengths = (1,) * (ndim - len(step_shape)) + step_shape
        return all(lengths[axis] == 1 for axis in self.coupled_axes(ndim))

    def unit_count(self, shape: Shape) -> int:
        return groups.count(self.axes, self.view(shape))

    def leaf_sizes(self, leaf: jax.Array) -> jax.Array:
        return _group_sizes(self, leaf)

    def leaf_spread(self, units: jax.Array, shape: Shape) -> jax.Array:
        whole = jnp.broadcast_to(units, self.view(shape))
        return reshaped(repr(self), whole, shape)


@dataclasses.dataclass(frozen=True)
class Matrix(Layout):
    """A matrix per layer, which cannot be sharded.

    `split` of the axes behind those of the stack make up its rows; from the end of
    the shape if negative.
    """

    split: int
    stacked: int = 0

    def refusal(self, shape: Shape) -> str | None:
        ndim = len(shape) - self.stacked
        if ndim < 2 and self.stacked:
            return _no_layers(len(shape), self.stacked)
        if ndim < 2:
            return "has fewer than two axes and is no matrix; leave it free"
        if self.split == 0 or not -ndim < self.split < ndim:
            return (
                f"has {ndim} axes, and split={self.split} leaves none of them for the "
                f"rows or for the columns; use a split from 1 to {ndim - 1}"
            )
        return None

    def view(self, shape: Shape) -> Shape:
        layers, shape = shape[: self.stacked], shape[self.stacked :]
        rows, columns = shape[: self.split], shape[self.split :]
        return *layers, math.prod(rows), math.prod(columns)

    def whole_axes(self, shape: Shape) -> Sequence[int]:
        return range(len(shape))

    def always_whole_axes(self, shape: Shape) -> Sequence[int]:
        return range(len(shape))


@dataclasses.dataclass(frozen=True)
class Lines(Layout):
    """Entries along `axis`, one or several, are neighbours; others are independent."""

    axis: int | tuple[int, ...]

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes along which entries are neighbours."""
        return self.axis if isinstance(self.axis, tuple) else (self.axis,)

    def refusal(self, shape: Shape) -> str | None:
        ndim = len(shape)
        if not shape:
            return "has no axis along which entries are neighbours; leave it free"
        if not all(-ndim <= axis < ndim for axis in self.axes):
            return f"has axes 0 to {ndim - 1}, and axis is {self.axis}; name those"
        if len({axis % ndim for axis in self.axes}) < len(self.axes):
            return f"has axes 0 to {ndim - 1}, and axis {self.axis} names one twice"
        return None

    def whole_axes(self, shape: Shape) -> Sequence[int]:
        return range(len(shape))

    def coupled_axes(self, ndim: int) -> Sequence[int]:
        return [axis % ndim for axis in self.axes]

    def always_whole_axes(self, shape: Shape) -> Sequence[int]:
        return [axis % len(shape) for axis in self.axes]

    def step_varies(self, shape: Shape, step_shape: Shape) -> bool:
        lengths = (1,) * (len(shape) - len(step_shape)) + step_shape
        return any(lengths[axis] > 1 for axis in self.axes)


@functools.partial(jax.jit, static_argnames="layout")
def _group_sizes(layout: Groups, leaf: jax.Array) -> jax.Array:
    """The root mean squares of groups, traced once for all leaves of one kind."""
    seen = reshaped(repr(layout), leaf, layout.view(leaf.shape))
    return groups.root_mean_square(seen, layout.axes)


def _no_layers(ndim: int, stacked: int) -> str:
    return (
        f"has {ndim} axes, too few for layers stacked along {stacked} of them; leave "
        "it free, or write a smaller stacked="
    )
