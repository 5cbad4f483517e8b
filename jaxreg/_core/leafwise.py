"""Penalties that are sums over leaves: subclasses write the formula for one array.

`Leafwise` adds up leaves; `Elementwise` adds up entries, `Groupwise` groups;
`GradientOnly` has no prox.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

import jax
import jax.numpy as jnp

from jaxreg._core import groups
from jaxreg._core.alike import kinds_of
from jaxreg._core.layout import Groups, Layout, Shape
from jaxreg._core.messages import shown
from jaxreg._core.penalty import (
    Facts,
    Leaf,
    Number,
    Penalty,
    Tree,
    grads_like,
    is_untouched,
    steps_like,
    widened,
)
from jaxreg._core.ranges import jax_number
from jaxreg._core.shards import COUPLED, WHOLE_HINT, check_whole_leaf, reshaped

T = TypeVar("T")

# The width of the prox step in residuals: the default of `regularize`.
RESIDUAL_WIDTH = 0.05

# Trees with at most this many leaves are unrolled: stacking leaves copies them.
_MOST_UNROLLED = 8


class Leafwise(Penalty):
    """A sum over leaves: subclasses write the formula for one array.

    The `leaf_*` methods get arrays of at least float32 with at least one entry, in the
    shape of `layout.view`. A prox that `has_loop` is compiled once for many equal
    leaves, since XLA takes half a second for each loop.
    """

    has_loop: bool = False

    @property
    def carries_nan(self) -> bool:
        """True if `leaf_prox` is NaN wherever it depends on what is not finite.

        For others that couple entries, this takes one more pass over the leaf.
        """
        return False

    @abc.abstractmethod
    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        """The values of the independent pieces of one array, differentiable at 0.

        Their sum is the penalty; their shape broadcasts against that of the leaf. For a
        penalty that couples all entries it is one scalar.
        """

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        """The subgradient nearest to 0 at one array; here the gradient of the value."""
        return jax.grad(lambda x: jnp.sum(self.leaf_values(x)))(leaf)

    @abc.abstractmethod
    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        """The prox at one array; `step` broadcasts against it."""

    def leaf_stationarity(self, leaf: jax.Array, grad: jax.Array) -> jax.Array:
        """The stationarity of one array with loss gradient `grad`.

        Here the prox residual `|x - prox(x - s grad)| / s`, which is 0 exactly at
        stationary points: for a penalty whose `stationarity_kind` is "residual".
        """
        step = self.step_for(RESIDUAL_WIDTH).astype(leaf.dtype)
        return jnp.abs(leaf - self.leaf_prox(leaf - step * grad, step)) / step

    def leaf_start(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        """A latent whose prox is `leaf`, or the nearest that the prox can return."""
        return leaf + step * self.leaf_subgradient(leaf)

    def leaf_nearest(
        self, latent: jax.Array, leaf: jax.Array, step: jax.Array
    ) -> jax.Array:
        """`nearest_latent` of one array.

        Here the latent, or a new start if its prox is not `leaf`.
        """
        is_prox = self._is_prox(self.leaf_prox(latent, step), leaf)
        return jnp.where(is_prox, latent, self.leaf_start(leaf, step))

    def value(self, params: Tree) -> jax.Array:
        leaves = [widened(leaf) for leaf in jax.tree.leaves(params)]
        values = (_leaf_value(self, self._seen(x)) for x in leaves if x.size)
        return sum(values, start=jnp.zeros((), jnp.float32))

    def subgradient(self, params: Tree) -> Tree:
        def slope(leaf: Leaf) -> jax.Array:
            leaf = jnp.asarray(leaf)
            if not leaf.size:
                return leaf
            slope = _leaf_subgradient(self, self._seen(widened(leaf)))
            return self._as_leaf(slope, leaf).astype(leaf.dtype)

        return jax.tree.map(slope, params)

    def prox(self, params: Tree, step: Number | Tree) -> Tree:
        leaves, treedef = jax.tree.flatten(params)
        leaves, steps = list(map(jnp.asarray, leaves)), steps_like(params, step)
        for leaf, leaf_step in zip(leaves, steps, strict=True):
            if leaf.size:
                self._check_shape(leaf.shape)
                check_step(self, self.layout, leaf.shape, leaf_step.shape)
                self._check_whole(leaf, self.layout.whole_axes(leaf.shape))
        proxes = self._on_alike(_leaf_prox, leaves, steps)
        return jax.tree.unflatten(treedef, proxes)

    def _on_alike(
        self,
        formula: Callable[..., jax.Array],
        leaves: list[jax.Array],
        steps: list[jax.Array],
        *more: list[jax.Array],
    ) -> list[jax.Array]:
        """The formula of each leaf; of many, with one compiled body per kind."""
        columns = (leaves, steps, *more)
        if len(leaves) <= _MOST_UNROLLED:
            return [formula(self, *each) for each in zip(*columns, strict=True)]
        out = list(leaves)
        for rows in kinds_of(*columns):
            alike = [[column[row] for row in rows] for column in columns]
            at_once = self.leaves_at_once(alike[0][0].shape, alike[1][0].shape)
            if at_once:
                stacks = jax.lax.map(
                    lambda arrays: formula(self, *arrays),
                    list(map(jnp.stack, alike)),
                    batch_size=at_once if at_once > 1 else None,
                )
                out_of_kind = [stacks[row] for row in range(len(rows))]
            else:
                out_of_kind = [
                    formula(self, *each) for each in zip(*alike, strict=True)
                ]
            for row, result in zip(rows, out_of_kind, strict=True):
                out[row] = result
        return out

    def leaves_at_once(self, shape: Shape, step_shape: Shape) -> int:
        """The number of equal leaves per pass of one compiled body; 0 to unroll."""
        del shape, step_shape
        return 1 if self.has_loop else 0

    def stationarity(self, params: Tree, grads: Tree) -> Tree:
        def distance(leaf: Leaf, grad: Leaf) -> jax.Array:
            leaf, grad = widened(leaf), widened(grad)
            if not leaf.size:
                return leaf
            if self.facts.stationarity_kind == "residual":
                self._check_whole(leaf, self.layout.whole_axes(leaf.shape))
            pair = self._seen(leaf), self._seen(grad)
            return self._as_leaf(_by_layer(self, self.leaf_stationarity)(*pair), leaf)

        leaves, treedef = jax.tree.flatten(params)
        pulls = grads_like(params, grads)
        return jax.tree.unflatten(treedef, map(distance, leaves, pulls))

    def _nearest(self, latent: Tree, params: Tree, step: Number) -> Tree:
        leaves, treedef = jax.tree.flatten(params)
        for leaf in leaves:
            if leaf.size:
                self._check_whole(leaf, self.layout.whole_axes(leaf.shape))
        steps = [jnp.asarray(step, leaf.dtype) for leaf in leaves]
        latents = jax.tree.leaves(latent)
        nearest = self._on_alike(_leaf_nearest, latents, steps, leaves)
        return jax.tree.unflatten(treedef, nearest)

    def _seen(self, leaf: jax.Array) -> jax.Array:
        """The leaf in the shape that the formulas take, after validation."""
        self._check_shape(leaf.shape)
        if not self.facts.is_separable:
            check_whole_leaf(repr(self), leaf, COUPLED)
        self._check_whole(leaf, self.layout.always_whole_axes(leaf.shape))
        return reshaped(repr(self), leaf, self.layout.view(leaf.shape))

    def _as_leaf(self, seen: jax.Array, leaf: jax.Array) -> jax.Array:
        return reshaped(repr(self), seen, leaf.shape)

    def _check_shape(self, shape: Shape) -> None:
        reason = self.layout.refusal(shape)
        if reason is not None:
            raise ValueError(
                f"{shown(self)} on a leaf of shape {shape}: the leaf {reason}"
            )

    def _check_whole(self, leaf: jax.Array, axes: Sequence[int]) -> None:
        """Raises if one of these axes is sharded."""
        spec = jax.typeof(leaf).sharding.spec
        for axis in axes:
            if axis < len(spec) and spec[axis] is not None:
                raise ValueError(
                    f"{shown(self)}: axis {axis} of a leaf of shape {leaf.shape} is "
                    f"sharded over mesh axis {spec[axis]!r}, and the penalty needs "
                    f"that axis whole. {WHOLE_HINT}"
                )


def traced_once(formula: Callable[..., T]) -> Callable[..., T]:
    """A formula of arrays, traced once for all leaves of one kind."""
    jitted = jax.jit(formula)

    def call(penalty: Penalty, *arrays: Tree) -> T:
        return jitted(jax.tree.map(jax_number, penalty), *arrays)

    return call


def _by_layer(
    penalty: Leafwise, formula: Callable[..., jax.Array]
) -> Callable[..., jax.Array]:
    """A formula of one array, applied to each layer of the stacks of the layout."""
    for _ in range(penalty.layout.stacked):
        formula = jax.vmap(formula)
    return formula


@traced_once
def _leaf_value(penalty: Leafwise, leaf: jax.Array) -> jax.Array:
    return jnp.sum(_by_layer(penalty, penalty.leaf_values)(leaf))


@traced_once
def _leaf_subgradient(penalty: Leafwise, leaf: jax.Array) -> jax.Array:
    return _by_layer(penalty, penalty.leaf_subgradient)(leaf)


@traced_once
def _leaf_slope_at_zero(penalty: Elementwise) -> jax.Array:
    tiny = jnp.asarray(jnp.finfo(jnp.float32).tiny)
    slope = jax.grad(lambda x: jnp.sum(penalty.leaf_values(x)))(tiny)
    # A slope this small comes from a curvature, not from a kink.
    return jnp.where(slope > jnp.sqrt(tiny), slope, 0.0)


@traced_once
def _leaf_nearest(
    penalty: Leafwise, latent: jax.Array, step: jax.Array, leaf: jax.Array
) -> jax.Array:
    if not leaf.size:
        return latent

    def nearest(latent: jax.Array, leaf: jax.Array) -> jax.Array:
        return penalty.leaf_nearest(latent, leaf, step)

    pair = penalty._seen(latent), penalty._seen(leaf)
    return penalty._as_leaf(_by_layer(penalty, nearest)(*pair), leaf)


@traced_once
def _leaf_prox(penalty: Leafwise, leaf: jax.Array, step: jax.Array) -> jax.Array:
    """The prox of one leaf, in its dtype."""
    if not leaf.size:
        return leaf
    wide = penalty._seen(widened(leaf))
    step, stacked = step.astype(wide.dtype), penalty.layout.stacked
    if step.size > 1 and (stacked or wide.shape != leaf.shape):
        step = penalty._seen(jnp.broadcast_to(step, leaf.shape))
    elif stacked:
        step = jnp.broadcast_to(step.reshape(()), wide.shape[:stacked])
    prox = _by_layer(penalty, penalty.leaf_prox)
    if penalty.facts.is_separable or penalty.carries_nan:
        out = prox(wide, step)
    else:
        is_finite = all_finite(wide, tuple(penalty.layout.coupled_axes(wide.ndim)))
        # The formula gets zeros instead, since some loops take all lines together.
        out = nan_unless(is_finite, prox(jnp.where(is_finite, wide, 0), step))
    out = without_negative_zero(penalty._as_leaf(out, leaf).astype(leaf.dtype))
    # Comparisons with NaN are false: a NaN in a sum over entries would become a zero.
    return jax.lax.select(leaf != leaf, leaf, out)


class Elementwise(Leafwise):
    """A sum over entries of one function of a number, even and rising from 0.

    Subclasses write `leaf_values`, `leaf_prox` and `step_for`, and `is_convex = False`
    if they are not convex. Everything else follows; override it where a formula is
    known.
    """

    is_convex: bool = True

    @property
    def facts(self) -> Facts:
        return Facts(
            is_convex=self.is_convex,
            is_separable=True,
            varying_step=True,
            zeros=None if _is_flat(self) else "entries",
            is_absolute=True,
        )

    @property
    def slope_at_zero(self) -> Number:
        """The derivative at 0 from the right: gradients below it keep a zero."""
        return _leaf_slope_at_zero(self)

    def leaf_stationarity(self, leaf: jax.Array, grad: jax.Array) -> jax.Array:
        at_zero = jnp.maximum(jnp.abs(grad) - self.slope_at_zero, 0.0)
        pull = jnp.abs(grad + self.leaf_subgradient(leaf))
        return jnp.where(leaf == 0, at_zero, pull)

    def dead_zone(self, step: jax.Array) -> jax.Array:
        """The size up to which the prox gives 0; `step_for` is its inverse.

        Here `step` times the slope at 0, exact for convex penalties; for others 0, a
        lower bound.
        """
        return step * (self.slope_at_zero if self.is_convex else 0.0)

    @property
    def _has_own_latents(self) -> bool:
        return True

    def leaf_nearest(
        self, latent: jax.Array, leaf: jax.Array, step: jax.Array
    ) -> jax.Array:
        start = self.leaf_start(leaf, step)
        is_unchanged = is_untouched(latent, start)
        zone = jnp.asarray(self.dead_zone(step)).astype(leaf.dtype)
        # Inside the edge by some rounding, where the prox is 0 however it is computed.
        edge = zone * (1 - 8 * jnp.finfo(leaf.dtype).eps)
        within = jnp.clip(latent, -edge, edge)
        within = jnp.where(jnp.abs(latent) <= zone, latent, within)
        if not self.is_convex:
            # A prox that jumps may zero more than this zone.
            within = jnp.where(self.leaf_prox(latent, step) == 0, latent, within)
        return jnp.where(leaf == 0, within, jnp.where(is_unchanged, latent, start))


def _is_flat(penalty: Elementwise) -> bool:
    """True if the slope at 0 is known to be 0, inside a trace too."""
    if any(isinstance(n, jax.core.Tracer) for n in jax.tree.leaves(penalty)):
        return False
    with jax.ensure_compile_time_eval():
        slope = penalty.slope_at_zero
        return jnp.ndim(slope) == 0 and float(slope) <= 0


class Groupwise(Leafwise):
    """A penalty or constraint on each group of a leaf; None makes a leaf one group."""

    group_axis: groups.GroupAxis | None

    def __post_init__(self) -> None:
        groups.indexing(self.group_axis)

    @property
    def layout(self) -> Groups:
        return Groups(self.group_axis)

    @property
    def _axes(self) -> tuple[int, ...]:
        return groups.indexing(self.group_axis)

    def _slopes(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        """Per-entry steps; ones if the step is constant within groups."""
        if self.layout.is_uniform(step.shape, leaf.ndim):
            return jnp.ones((1,) * leaf.ndim, leaf.dtype)
        return jnp.broadcast_to(step, leaf.shape)


class GradientOnly(Leafwise):
    """A regularizer without a useful prox: it acts by its gradient alone."""

    facts = Facts(is_convex=False, has_prox=False)

    @property
    def _no_sums(self) -> str:
        return no_prox(self)

    def leaf_stationarity(self, leaf: jax.Array, grad: jax.Array) -> jax.Array:
        return jnp.abs(grad + self.leaf_subgradient(leaf))

    def prox(self, params: Tree, step: Number | Tree) -> NoReturn:
        del params, step
        raise TypeError(no_prox(self))

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> NoReturn:
        del leaf, step
        raise TypeError(no_prox(self))

    def step_for(self, width: Number) -> NoReturn:
        del width
        raise TypeError(no_prox(self))


def no_prox(penalty: Penalty) -> str:
    """The error message where a penalty without a prox is asked for one."""
    return (
        f"{shown(penalty)} has no prox, only a gradient: put "
        "jaxreg.add_penalty_gradient(it) first in the chain, before the optimizer or "
        "before jaxreg.regularize(optimizer, another penalty)"
    )


def check_step(
    penalty: Penalty, layout: Layout, shape: Shape, step_shape: Shape
) -> None:
    """Raises if a step varies among entries that the penalty couples, and may not."""
    if not penalty.facts.varying_step and layout.step_varies(shape, step_shape):
        raise ValueError(
            f"prox of {shown(penalty)}: a step of shape {step_shape} varies among "
            f"entries of a leaf of shape {shape} that the penalty couples, and no "
            "prox is known for that. Use jaxreg.regularize, whose step is one "
            "number for any optimizer, or pass one step per leaf"
        )


def all_finite(leaf: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """True where all entries along the axes, kept with length 1, are finite.

    A prox that couples them is NaN elsewhere: its comparisons, or its search for a
    level, would make zeros and other plain numbers of an infinity or a NaN.
    """
    return jnp.all(jnp.isfinite(leaf), axis=axes, keepdims=True)


def nan_unless(is_finite: jax.Array, leaf: jax.Array) -> jax.Array:
    """The leaf, with NaN where the mask is false."""
    # Not a select of a constant NaN: under jax_debug_nans that stops every eager run.
    return leaf + 0 * jnp.where(is_finite, 0.0, jnp.inf).astype(leaf.dtype)


def nan_if_infinite(leaf: jax.Array) -> jax.Array:
    """The leaf with NaN in place of infinities, for a prox that `carries_nan`."""
    # Not a select, which XLA:CPU does not fuse into the sums that follow.
    return leaf + (leaf - leaf)


def magnitude(leaf: jax.Array) -> jax.Array:
    """`|leaf|` with derivative sign(leaf): 0 at 0, where jnp.abs has 1."""
    return leaf * jax.lax.stop_gradient(jnp.sign(leaf))


def without_negative_zero(leaf: jax.Array) -> jax.Array:
    """Replaces -0.0, which products with a factor of zero leave, by 0.0."""
    zeros = jnp.zeros_like(leaf)
    return leaf - jax.lax.stop_gradient(jax.lax.select(leaf == zeros, leaf, zeros))
