"""The contract every penalty keeps, and what prox means.

A penalty `h` is a number made of parameters. Its proximal operator with step `s`,

    prox_s(v) = argmin_x  h(x) + sum_i (x_i - v_i)^2 / (2 s_i),

is what leaves exact zeros; its subgradient is what a loss would add. Penalties are
frozen dataclasses and pytrees: their numbers are leaves (so a grid of strengths is one
vmapped penalty, and a jitted run compiles once for all strengths), their sizes and axes
are static. `jaxreg.leafwise` has the penalties that are sums over leaves.
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
    def has_prox(self) -> bool:
        """Whether `prox` exists; without it a penalty acts by its gradient alone."""
        return True

    @property
    def prox_tolerance(self) -> float:
        """The relative error of `prox` beyond rounding; 0 where it is exact."""
        return 0.0

    @property
    @abc.abstractmethod
    def is_convex(self) -> bool:
        """Whether the penalty is a convex function."""

    @property
    @abc.abstractmethod
    def varying_step(self) -> bool:
        """Whether `prox` is exact for steps that differ within a leaf."""

    @property
    def is_separable(self) -> bool:
        """Whether it is a sum over entries, each of which has a prox of its own."""
        return False

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

    def is_coupled(self, shape: tuple[int, ...]) -> bool:
        """Whether the prox of an entry depends on entries outside its group."""
        return self.independent_axis(shape) is None

    def latent_start(self, params: Tree, step: Number) -> Tree:
        """A latent whose prox is `params`, or the nearest that the prox can return."""
        slopes = self.subgradient(params)
        return jax.tree.map(lambda leaf, slope: leaf + step * slope, params, slopes)

    def group_count(self, shape: tuple[int, ...]) -> int | None:
        """The groups of a leaf of this shape; None where every entry stands alone."""
        del shape
        return None

    def dead_groups(self, leaf: jax.Array) -> jax.Array | None:
        """Per group, whether all of it is exactly zero; None without groups."""
        del leaf
        return None

    def pooled(self, leaf: jax.Array) -> jax.Array:
        """The leaf, or one entry per group that the prox treats as it treats it."""
        return leaf

    def unit_sizes(self, leaf: jax.Array) -> jax.Array:
        """The size of every unit that the prox zeroes as one; here of every entry."""
        return jnp.abs(leaf)

    def spread(self, units: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """What holds of each unit, at every entry of a leaf of this shape."""
        return jnp.broadcast_to(units, shape)

    def distribute(
        self, lift: Callable[[Penalty, Tree], Penalty], tree: Tree
    ) -> Penalty:
        """`lift(self, tree)`; rules give each of their penalties its part of `tree`."""
        return lift(self, tree)

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
            "those of L1, L2 and ElasticNet, GroupLasso + L2, GroupLasso + L1, and "
            "TotalVariation + L1. To put different "
            "penalties on different leaves use jaxreg.by_path; to do without the zeros "
            "of one, chain jaxreg.add_penalty_gradient(it) before jaxreg.regularize "
            "with the other."
        )


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
    return jnp.promote_types(jnp.result_type(leaf), jnp.float32)


def widened(leaf: Any) -> jax.Array:
    """The leaf in its wide dtype."""
    leaf = jnp.asarray(leaf)
    return leaf.astype(wide_dtype(leaf))


def _broadcast_shape(step: jax.Array, leaf: Any) -> tuple[int, ...] | None:
    try:
        return jnp.broadcast_shapes(step.shape, jnp.shape(leaf))
    except ValueError:
        return None
