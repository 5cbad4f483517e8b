"""The contract every penalty keeps, and what prox means.

A penalty `h` is a number made of parameters. Its proximal operator with step `s`,

    prox_s(v) = argmin_x  h(x) + sum_i (x_i - v_i)^2 / (2 s_i),

is what leaves exact zeros; its subgradient is what a loss would add. Penalties are
frozen dataclasses and pytrees: their numbers are leaves (so a grid of strengths is one
vmapped penalty, and a jitted run compiles once for all strengths), their sizes and axes
are static. `Penalty` says what every penalty answers; `Leafwise` is the penalty that is
a sum over leaves, of which a concrete penalty writes the formula for one array.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

Number = float | jax.Array
Tree = Any

GRADS_MEND = "pass the gradient of the loss at params"

_EXACT_SUMS: dict[tuple[type, type], Callable[[Any, Any], Penalty]] = {}


class Penalty(abc.ABC):
    """What every penalty answers. Methods are pure and take whole pytrees.

    `None` leaves and `optax.MaskedNode` hold no arrays and pass through.
    """

    @property
    @abc.abstractmethod
    def is_convex(self) -> bool:
        """Whether the penalty is a convex function."""

    @property
    @abc.abstractmethod
    def varying_step(self) -> bool:
        """Whether `prox` is exact for steps that differ within a leaf."""

    @property
    @abc.abstractmethod
    def scope(self) -> Literal["leaf", "tree"]:
        """Whether the penalty is a sum over leaves or couples them."""

    @property
    @abc.abstractmethod
    def stationarity_kind(self) -> Literal["distance", "residual", "normal cone"]:
        """What `stationarity` returns: see there."""

    @abc.abstractmethod
    def value(self, params: Tree) -> jax.Array:
        """The penalty, a scalar: a sum, never a mean. Its gradient is `subgradient`."""

    @abc.abstractmethod
    def subgradient(self, params: Tree) -> Tree:
        """An element of the subdifferential at `params`; the one nearest to 0."""

    @abc.abstractmethod
    def prox(self, params: Tree, step: Number | Tree) -> Tree:
        """`argmin_x h(x) + sum (x - params)^2 / (2 step)`.

        `step` >= 0 is a scalar, or a tree with the structure of `params` whose leaves
        broadcast against its leaves. `step = 0` returns `params`.
        """

    @abc.abstractmethod
    def step_for(self, width: Number) -> jax.Array:
        """The step whose dead zone is `width` wide, in units of the weights.

        With a kink at 0 it is the step whose prox just zeroes an entry (for groups a
        root mean square) of size `width`; for every convex penalty here it is the step
        with `prox(2 width) = width`.
        """

    @abc.abstractmethod
    def stationarity(self, params: Tree, grads: Tree) -> Tree:
        """Per coordinate, how far `-grads` is from the subdifferential at `params`.

        It is 0 everywhere exactly when `params` is a stationary point of the loss with
        gradient `grads` plus this penalty. `stationarity_kind` says how it is measured:
        "distance" to the subdifferential, a prox "residual" where no closed form of the
        distance exists, or for constraints the distance to the "normal cone".
        """

    def refusal(self, shape: tuple[int, ...]) -> str | None:
        """Why a leaf of this shape cannot carry the penalty, or None."""
        del shape
        return None

    def independent_axis(self, shape: tuple[int, ...]) -> int | None:
        """An axis along which the prox of a slice is the slice of the prox, if any."""
        del shape
        return None

    @property
    def group_axes(self) -> tuple[int, ...] | None:
        """The axes that index groups; None where every entry stands alone."""
        return None

    def __add__(self, other: object) -> Penalty:
        """The sum, where its joint prox is exact; elsewhere an error that says so."""
        if not isinstance(other, Penalty):
            return NotImplemented
        forward = _EXACT_SUMS.get((type(self), type(other)))
        if forward is not None:
            return forward(self, other)
        backward = _EXACT_SUMS.get((type(other), type(self)))
        if backward is not None:
            return backward(other, self)
        raise TypeError(
            f"{self!r} + {other!r}: the prox of this sum is not known in closed form, "
            "and composing the two proxes would solve another problem. Exact sums are "
            "those of L1, L2 and ElasticNet, and GroupLasso + L2. To put different "
            "penalties on different leaves use jaxreg.by_path; to do without the zeros "
            "of one, chain jaxreg.add_penalty_gradient(it) before jaxreg.regularize "
            "with the other."
        )


class Leafwise(Penalty):
    """A penalty that is a sum over leaves: subclasses write the formula of one array.

    The `leaf_*` methods get arrays of at least float32 with at least one entry.
    """

    scope = "leaf"
    stationarity_kind = "distance"

    @abc.abstractmethod
    def leaf_value(self, leaf: jax.Array) -> jax.Array:
        """The penalty of one array, differentiable at 0."""

    @abc.abstractmethod
    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        """The subgradient nearest to 0 at one array."""

    @abc.abstractmethod
    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        """The prox at one array; `step` broadcasts against it."""

    @abc.abstractmethod
    def leaf_stationarity(self, leaf: jax.Array, grad: jax.Array) -> jax.Array:
        """The stationarity of one array with loss gradient `grad`."""

    def value(self, params: Tree) -> jax.Array:
        leaves = [widened(leaf) for leaf in jax.tree.leaves(params)]
        zero = jnp.zeros((), jnp.float32)
        return sum((self.leaf_value(leaf) for leaf in leaves if leaf.size), start=zero)

    def subgradient(self, params: Tree) -> Tree:
        def one(leaf: Any) -> jax.Array:
            leaf = jnp.asarray(leaf)
            if not leaf.size:
                return leaf
            return self.leaf_subgradient(widened(leaf)).astype(leaf.dtype)

        return jax.tree.map(one, params)

    def prox(self, params: Tree, step: Number | Tree) -> Tree:
        leaves, treedef = jax.tree.flatten(params)
        steps = steps_like(params, step)
        return jax.tree.unflatten(treedef, map(self._prox_in_own_dtype, leaves, steps))

    def _prox_in_own_dtype(self, leaf: Any, step: jax.Array) -> jax.Array:
        leaf = jnp.asarray(leaf)
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f"prox of {self!r} on a leaf of dtype {leaf.dtype}; allowed: real "
                "floating leaves"
            )
        if not leaf.size:
            return leaf
        wide = widened(leaf)
        out = self.leaf_prox(wide, step.astype(wide.dtype)).astype(leaf.dtype)
        # Products with a zero factor and underflow leave -0.0, and -0.0 - -0.0 is 0.0.
        return out - jax.lax.stop_gradient(jnp.where(out == 0, out, 0))

    def stationarity(self, params: Tree, grads: Tree) -> Tree:
        def one(leaf: Any, grad: Any) -> jax.Array:
            leaf, grad = widened(leaf), widened(grad)
            return self.leaf_stationarity(leaf, grad) if leaf.size else leaf

        leaves, treedef = jax.tree.flatten(params)
        pulls = flatten_like(treedef, grads, "grads", GRADS_MEND)
        return jax.tree.unflatten(treedef, map(one, leaves, pulls))

    def independent_axis(self, shape: tuple[int, ...]) -> int | None:
        """The longest of the axes that index independent pieces."""
        axes = range(len(shape)) if self.group_axes is None else self.group_axes
        ordered = [axis % len(shape) for axis in axes]
        return max(ordered, key=lambda axis: shape[axis]) if ordered else None


def exact_sum(
    first: type, second: type
) -> Callable[[Callable[[Any, Any], Penalty]], Callable[[Any, Any], Penalty]]:
    """Registers the penalty that `first + second` is, in either order.

    The file of the richer class owns the rule of the sum.
    """

    def register(rule: Callable[[Any, Any], Penalty]) -> Callable[[Any, Any], Penalty]:
        _EXACT_SUMS[first, second] = rule
        return rule

    return register


def ratio(width: Number, slope: Number) -> jax.Array:
    """`width / slope`, the step at which a slope of `slope` moves an entry by `width`.

    Where the slope is 0 no step moves anything and every step has the same prox;
    `width` is returned, so that nothing downstream meets an infinity.
    """
    # In at least float32: 5e-5 is subnormal in float16, and would pass for 0.
    wide = jnp.promote_types(jnp.result_type(width, slope, float), jnp.float32)
    width, slope = jnp.asarray(width, wide), jnp.asarray(slope, wide)
    is_flat = slope <= jnp.finfo(wide).tiny
    return jnp.where(is_flat, width, width / jnp.where(is_flat, 1.0, slope))


def steps_like(params: Tree, step: Number | Tree) -> list[jax.Array]:
    """One step per leaf of `params`, from a scalar or from a tree of its structure."""
    paths_and_leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
    is_one_array = jax.tree_util.all_leaves([step])
    if is_one_array and jnp.ndim(step) == 0:
        return [jnp.asarray(step)] * len(paths_and_leaves)
    mend = "allowed: a scalar, or a tree with the structure of params"
    steps = [jnp.asarray(s) for s in flatten_like(treedef, step, "step", mend)]
    for (path, leaf), one in zip(paths_and_leaves, steps, strict=True):
        if _broadcast_shape(one, leaf) != jnp.shape(leaf):
            raise ValueError(
                f"step{jax.tree_util.keystr(path)} has shape {one.shape}; allowed: a "
                f"shape that broadcasts to that of its leaf, {jnp.shape(leaf)}"
            )
    return steps


def flatten_like(treedef: Any, tree: Tree, name: str, mend: str) -> list[Any]:
    """The subtrees of `tree` at the leaves of `treedef`; refuses another structure."""
    try:
        return treedef.flatten_up_to(tree)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{name} and params differ in structure: {jax.tree.structure(tree)} "
            f"against {treedef}; {mend}"
        ) from error


def wide_dtype(leaf: Any) -> Any:
    """At least float32: half precision loses a step below half a unit."""
    return jnp.promote_types(leaf.dtype, jnp.float32)


def widened(leaf: Any) -> jax.Array:
    """The leaf in its wide dtype."""
    leaf = jnp.asarray(leaf)
    return leaf.astype(wide_dtype(leaf))


def _broadcast_shape(step: jax.Array, leaf: Any) -> tuple[int, ...] | None:
    try:
        return jnp.broadcast_shapes(step.shape, jnp.shape(leaf))
    except ValueError:
        return None
