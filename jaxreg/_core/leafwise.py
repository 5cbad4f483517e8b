"""Penalties that are sums over leaves: a concrete one writes the formula of one array.

`Leafwise` adds up leaves; `Elementwise` adds up entries; `GradientOnly` has no prox.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from typing import Any, Literal, NoReturn

import jax
import jax.numpy as jnp

from jaxreg._core.penalty import (
    GRADS_MEND,
    Number,
    Penalty,
    Tree,
    flatten_like,
    steps_like,
    widened,
)
from jaxreg._core.shards import COUPLED, WHOLE_MEND, refuse_part, reshaped

_RESIDUAL_WIDTH = 0.05

# Up to so many equal leaves are compiled one by one.
_FEW = 8


class Leafwise(Penalty):
    """A sum over leaves: subclasses write the formula of one array.

    The `leaf_*` methods get arrays of at least float32 with at least one entry, in the
    shape that `view` gives. A prox that `has_loop` is compiled once for many equal
    leaves, since XLA takes half a second for each loop.
    """

    has_loop: bool = False
    scope: Literal["leaf", "tree"] = "leaf"
    stationarity_kind: Literal["distance", "residual", "normal cone"] = "distance"

    @abc.abstractmethod
    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        """The values of the independent pieces of one array, differentiable at 0.

        Their sum is the penalty; their shape broadcasts against that of the leaf. Of a
        penalty that couples all entries it is one scalar.
        """

    @abc.abstractmethod
    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        """The subgradient nearest to 0 at one array."""

    @abc.abstractmethod
    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        """The prox at one array; `step` broadcasts against it."""

    def leaf_stationarity(self, leaf: jax.Array, grad: jax.Array) -> jax.Array:
        """The stationarity of one array with loss gradient `grad`.

        Here the prox residual `|x - prox(x - s grad)| / s`, which is 0 exactly at
        stationary points: for a penalty that declares "residual".
        """
        step = self.step_for(_RESIDUAL_WIDTH).astype(leaf.dtype)
        return jnp.abs(leaf - self.leaf_prox(leaf - step * grad, step)) / step

    def leaf_start(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        """A latent whose prox is `leaf`, or the nearest that the prox can return."""
        return leaf + step * self.leaf_subgradient(leaf)

    def view(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in which the penalty sees a leaf: a matrix, blocks, or as it is."""
        return shape

    def step_varies(self, shape: tuple[int, ...], step_shape: tuple[int, ...]) -> bool:
        """Whether a step of this shape differs among entries that the prox couples."""
        del shape
        return math.prod(step_shape) > 1

    def whole_axes(self, shape: tuple[int, ...]) -> Sequence[int]:
        """Axes along which the prox sorts or runs in order: they cannot be sharded."""
        del shape
        return ()

    def value(self, params: Tree) -> jax.Array:
        zero = jnp.zeros((), jnp.float32)
        leaves = [widened(leaf) for leaf in jax.tree.leaves(params)]
        return sum(
            (
                jnp.sum(self.leaf_values(self._seen(leaf)))
                for leaf in leaves
                if leaf.size
            ),
            start=zero,
        )

    def subgradient(self, params: Tree) -> Tree:
        def one(leaf: Any) -> jax.Array:
            leaf = jnp.asarray(leaf)
            if not leaf.size:
                return leaf
            slope = self.leaf_subgradient(self._seen(widened(leaf)))
            return self._as_leaf(slope, leaf).astype(leaf.dtype)

        return jax.tree.map(one, params)

    def prox(self, params: Tree, step: Number | Tree) -> Tree:
        leaves, treedef = jax.tree.flatten(params)
        steps = steps_like(params, step)
        if len(leaves) <= _FEW:
            proxes = list(map(self._prox_in_own_dtype, leaves, steps))
        else:
            proxes = self._proxes_of_alike(list(map(jnp.asarray, leaves)), steps)
        return jax.tree.unflatten(treedef, proxes)

    def _proxes_of_alike(
        self, leaves: list[jax.Array], steps: list[jax.Array]
    ) -> list[jax.Array]:
        """The proxes, with one compiled body for leaves of the same kind."""
        kinds: dict[Any, list[int]] = {}
        for place, pair in enumerate(zip(leaves, steps, strict=True)):
            kinds.setdefault(tuple(map(jax.typeof, pair)), []).append(place)
        out = list(leaves)
        for places in kinds.values():
            of_kind = [[x[place] for place in places] for x in (leaves, steps)]
            at_once = self.leaves_at_once(of_kind[0][0].shape, of_kind[1][0].shape)
            if at_once:
                proxes = jax.lax.map(
                    lambda pair: self._prox_in_own_dtype(*pair),
                    list(map(jnp.stack, of_kind)),
                    batch_size=at_once if at_once > 1 else None,
                )
                proxes = [proxes[row] for row in range(len(places))]
            else:
                proxes = map(self._prox_in_own_dtype, *of_kind)
            for place, prox in zip(places, proxes, strict=True):
                out[place] = prox
        return out

    def leaves_at_once(
        self, shape: tuple[int, ...], step_shape: tuple[int, ...]
    ) -> int:
        """How many equal leaves one compiled body takes; 0 where each has its own."""
        del shape, step_shape
        return 1 if self.has_loop else 0

    def _prox_in_own_dtype(self, leaf: Any, step: jax.Array) -> jax.Array:
        leaf = jnp.asarray(leaf)
        check_floating(self, leaf)
        if not leaf.size:
            return leaf
        self._check_shape(leaf.shape)
        self._check_step(leaf.shape, step.shape)
        self._check_sharding(leaf)
        wide = self._seen(widened(leaf))
        if step.size > 1 and wide.shape != leaf.shape:
            step = self._seen(jnp.broadcast_to(step, leaf.shape))
        out = self.leaf_prox(wide, step.astype(wide.dtype))
        out = without_negative_zero(self._as_leaf(out, leaf).astype(leaf.dtype))
        # No comparison holds of a NaN: it would pass for a zero of the penalty.
        return jax.lax.select(leaf != leaf, leaf, out)

    def stationarity(self, params: Tree, grads: Tree) -> Tree:
        def one(leaf: Any, grad: Any) -> jax.Array:
            leaf, grad = widened(leaf), widened(grad)
            if not leaf.size:
                return leaf
            pair = self._seen(leaf), self._seen(grad)
            return self._as_leaf(self.leaf_stationarity(*pair), leaf)

        leaves, treedef = jax.tree.flatten(params)
        pulls = flatten_like(treedef, grads, "grads", GRADS_MEND)
        return jax.tree.unflatten(treedef, map(one, leaves, pulls))

    def latent_start(self, params: Tree, step: Number) -> Tree:
        def one(leaf: jax.Array) -> jax.Array:
            if not leaf.size:
                return leaf
            step_here = jnp.asarray(step, leaf.dtype)
            return self._as_leaf(self.leaf_start(self._seen(leaf), step_here), leaf)

        return jax.tree.map(one, params)

    def _seen(self, leaf: jax.Array) -> jax.Array:
        self._check_shape(leaf.shape)
        if not self.is_separable:
            refuse_part(repr(self), leaf, COUPLED)
        return reshaped(repr(self), leaf, self.view(leaf.shape))

    def _as_leaf(self, seen: jax.Array, leaf: jax.Array) -> jax.Array:
        return reshaped(repr(self), seen, leaf.shape)

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        reason = self.refusal(shape)
        if reason is not None:
            raise ValueError(f"{self!r} on a leaf of shape {shape}: the leaf {reason}")

    def _check_step(self, shape: tuple[int, ...], step_shape: tuple[int, ...]) -> None:
        if not self.varying_step and self.step_varies(shape, step_shape):
            raise ValueError(
                f"prox of {self!r}: a step of shape {step_shape} varies among entries "
                f"of a leaf of shape {shape} that the penalty couples, and no prox is "
                "known for that. Use jaxreg.regularize, whose step is one number for "
                "any optimizer, or pass one step per leaf"
            )

    def _check_sharding(self, leaf: jax.Array) -> None:
        spec = jax.typeof(leaf).sharding.spec
        for axis in self.whole_axes(leaf.shape):
            if axis < len(spec) and spec[axis] is not None:
                raise ValueError(
                    f"prox of {self!r}: axis {axis} of a leaf of shape {leaf.shape} is "
                    f"sharded over mesh axis {spec[axis]!r}, and the prox needs that "
                    f"axis whole. {WHOLE_MEND}"
                )


class Elementwise(Leafwise):
    """A sum over entries of one function of a number, even and rising from 0."""

    varying_step = True
    is_separable = True

    @property
    @abc.abstractmethod
    def slope_at_zero(self) -> Number:
        """The derivative at 0 from the right: what a gradient must exceed at 0."""

    def leaf_stationarity(self, leaf: jax.Array, grad: jax.Array) -> jax.Array:
        at_zero = jnp.maximum(jnp.abs(grad) - self.slope_at_zero, 0.0)
        pull = jnp.abs(grad + self.leaf_subgradient(leaf))
        return jnp.where(leaf == 0, at_zero, pull)

    def independent_axis(self, shape: tuple[int, ...]) -> int | None:
        return longest(range(len(shape)), shape)


class GradientOnly(Leafwise):
    """A regularizer without a useful prox: its gradient is all that acts."""

    has_prox = False
    is_convex = False
    varying_step = False

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        return jax.grad(lambda x: jnp.sum(self.leaf_values(x)))(leaf)

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
    """What to say where a prox is asked of a penalty that has none."""
    return (
        f"{penalty!r} has no prox, only a gradient: put "
        "jaxreg.add_penalty_gradient(it) first in the chain, before the optimizer or "
        "before jaxreg.regularize(optimizer, another penalty)"
    )


def check_floating(penalty: Penalty, leaf: jax.Array) -> None:
    """Refuses to take the prox at integers and complex numbers."""
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        raise TypeError(
            f"prox of {penalty!r} on a leaf of dtype {leaf.dtype}; allowed: real "
            "floating leaves"
        )


def magnitude(leaf: jax.Array) -> jax.Array:
    """`|leaf|` with derivative sign(leaf), 0 at 0, where that of jnp.abs is 1."""
    return leaf * jax.lax.stop_gradient(jnp.sign(leaf))


def without_negative_zero(leaf: jax.Array) -> jax.Array:
    """The leaf with 0.0 for -0.0, which products with a factor of zero leave."""
    zeros = jnp.zeros_like(leaf)
    return leaf - jax.lax.stop_gradient(jax.lax.select(leaf == zeros, leaf, zeros))


def longest(axes: Sequence[int], shape: tuple[int, ...]) -> int | None:
    """The longest of some axes of a shape; None where there is none."""
    ordered = [axis % len(shape) for axis in axes]
    return max(ordered, key=lambda axis: shape[axis]) if ordered else None
