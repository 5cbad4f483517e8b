"""Weights of a penalty per entry, group or leaf."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

from jaxreg._core.checks import check_penalty
from jaxreg._core.constraint import Constraint
from jaxreg._core.layout import Layout, Shape
from jaxreg._core.leafwise import Leafwise
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
)
from jaxreg._core.pytree import array, derived, pytree_dataclass
from jaxreg.calculus.lift import (
    Fitted,
    Lift,
    aligned,
    broadcasts,
    is_single,
    one_per_leaf,
)


@pytree_dataclass
class WeightedLeaf(Leafwise):
    """A penalty whose pieces on one leaf are multiplied by weights."""

    penalty: Leafwise
    weights: Number = derived()

    @property
    def facts(self) -> Facts:
        return self.penalty.facts

    @property
    def carries_nan(self) -> bool:
        return self.penalty.carries_nan

    @property
    def layout(self) -> Layout:
        return Fitted(self.penalty.layout, self._misfit)

    def step_for(self, width: Number) -> jax.Array:
        return _step_for(self.penalty, self.weights, width)

    def leaf_values(self, leaf: jax.Array) -> jax.Array:
        return self._factor(leaf) * self.penalty.leaf_values(leaf)

    def leaf_subgradient(self, leaf: jax.Array) -> jax.Array:
        return self._factor(leaf) * self.penalty.leaf_subgradient(leaf)

    def leaf_prox(self, leaf: jax.Array, step: jax.Array) -> jax.Array:
        factor = self._factor(leaf)
        prox = self.penalty.leaf_prox(leaf, step * factor)
        # Weight 0 is the identity: its derivative is 1 at a kink too.
        return jnp.where(factor > 0, prox, leaf)

    def leaf_stationarity(self, leaf: jax.Array, grad: jax.Array) -> jax.Array:
        factor = self._factor(leaf)
        weighs = factor > 0
        share = jnp.where(weighs, factor, 1.0)
        distance = share * self.penalty.leaf_stationarity(leaf, grad / share)
        return jnp.where(weighs, distance, jnp.abs(grad))

    def leaf_nearest(
        self, latent: jax.Array, leaf: jax.Array, step: jax.Array
    ) -> jax.Array:
        factor = self._factor(leaf)
        nearest = self.penalty.leaf_nearest(latent, leaf, step * factor)
        free = jnp.where(is_untouched(latent, leaf), latent, leaf)
        return jnp.where(factor > 0, nearest, free)

    def _misfit(self, shape: Shape) -> str | None:
        weights, pieces = jnp.shape(self.weights), self._pieces(shape)
        if broadcasts(weights, pieces):
            return None
        return (
            f"takes weights that broadcast to shape {pieces}, one per independent "
            f"piece of the penalty; these have shape {weights}"
        )

    def _pieces(self, shape: Shape) -> Shape:
        seen = self.penalty.layout.view(shape)
        if self.facts.is_separable or not math.prod(seen):
            return seen
        leaf = jax.ShapeDtypeStruct(seen, jnp.float32)
        return jax.eval_shape(self.penalty.leaf_values, leaf).shape

    def _factor(self, leaf: jax.Array) -> jax.Array:
        return aligned(jnp.asarray(self.weights).astype(leaf.dtype), leaf)


@pytree_dataclass
class Weighted(Lift):
    """The result of `weighted`."""

    penalty: Leafwise
    weights: Tree = array()

    @property
    def facts(self) -> Facts:
        # A tree of weights needs all leaves at once.
        facts = self.penalty.facts
        return facts.but(is_joint=facts.is_joint or not is_single(self.weights))

    @property
    def layout(self) -> Layout:
        if not is_single(self.weights):
            return self.penalty.layout
        return WeightedLeaf(self.penalty, self.weights).layout

    def step_for(self, width: Number) -> jax.Array:
        return _step_for(self.penalty, self.weights, width)

    def value(self, params: Tree) -> jax.Array:
        values = [penalty.value(leaf) for penalty, leaf in self._pairs(params)]
        return sum(values, start=jnp.zeros((), jnp.float32))

    def subgradient(self, params: Tree) -> Tree:
        slopes = [penalty.subgradient(leaf) for penalty, leaf in self._pairs(params)]
        return jax.tree.unflatten(jax.tree.structure(params), slopes)

    def prox(self, params: Tree, step: Number | Tree) -> Tree:
        pairs = zip(self._pairs(params), steps_like(params, step), strict=True)
        proxes = [penalty.prox(leaf, s) for (penalty, leaf), s in pairs]
        return jax.tree.unflatten(jax.tree.structure(params), proxes)

    def stationarity(self, params: Tree, grads: Tree) -> Tree:
        treedef = jax.tree.structure(params)
        pulls = grads_like(params, grads)
        pairs = zip(self._pairs(params), pulls, strict=True)
        distances = [
            penalty.stationarity(leaf, pull) for (penalty, leaf), pull in pairs
        ]
        return jax.tree.unflatten(treedef, distances)

    def _nearest(self, latent: Tree, params: Tree, step: Number) -> Tree:
        latents, treedef = jax.tree.flatten(latent)
        pairs = zip(self._pairs(params), latents, strict=True)
        nearest = [penalty._nearest(z, leaf, step) for (penalty, leaf), z in pairs]
        return jax.tree.unflatten(treedef, nearest)

    def _pairs(self, params: Tree) -> list[tuple[WeightedLeaf, Leaf]]:
        paths_and_leaves = jax.tree_util.tree_flatten_with_path(params)[0]
        weights = one_per_leaf(params, self.weights, "weights")
        pairs = []
        for (path, leaf), leaf_weights in zip(paths_and_leaves, weights, strict=True):
            penalty = WeightedLeaf(self.penalty, leaf_weights)
            reason = penalty._misfit(jnp.shape(leaf))
            if reason is not None:
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                raise ValueError(
                    f"{shown(self)} on leaf {name!r} of shape {jnp.shape(leaf)}: the "
                    f"leaf {reason}. Reshape the weights, with axes of length 1 where "
                    "they do not vary"
                )
            pairs.append((penalty, leaf))
        return pairs


def weighted(penalty: Penalty, weights: Number | Tree) -> Penalty:
    """Multiplies each piece of a penalty by its own weight: `sum_i weights_i h_i(x)`.

    The pieces are entries for an elementwise penalty, groups for a group penalty, whole
    leaves for a penalty that couples a leaf. Weight 0 leaves a piece unpenalised: its
    prox is the identity. The adaptive lasso is `weighted(L1(s), 1 / abs(estimate))`.
    Everything else is as with `penalty`: zeros, bfloat16, and `step_for`, which gives
    the dead zone of a piece of weight 1.

    Args:
      penalty: a penalty that sums over leaves, or rules of such penalties.
      weights: finite and >= 0. A number; an array that broadcasts to the pieces of each
        leaf (for groups along axis 0 of a `(8, 3)` kernel: shape `(8, 1)`); or a tree
        of these with the structure of the parameters, with rules their paths.

    Raises:
      TypeError: the penalty has no pieces to weigh.
      ValueError: a weight is negative or not finite; a rule catches no leaf of
        `weights`; at use, the weights do not fit the pieces of a leaf.

    Reference: Zou 2006, The adaptive lasso and its oracle properties, eq. 4.

    >>> import jax.numpy as jnp, jaxreg
    >>> penalty = jaxreg.weighted(jaxreg.L1(1.0), jnp.array([0.0, 0.5, 2.0]))
    >>> penalty.prox(jnp.array([1.5, 1.5, 1.5]), step=1.0)
    Array([1.5, 1. , 0. ], dtype=float32)
    """
    check_penalty(penalty, weights=weights)
    return penalty.distribute(_weighted, weights)


def _weighted(penalty: Penalty, weights: Tree) -> Penalty:
    with_weights = penalty.weigh_units(weights)
    if with_weights is not None:
        return with_weights
    if not isinstance(penalty, Leafwise) or isinstance(penalty, Constraint):
        raise TypeError(
            f"weighted({shown(penalty)}, ...): it has no pieces to weigh. Allowed are "
            "penalties that sum over leaves, such as L1 and GroupLasso, and by_path of "
            "them; weigh a penalty first and lift it then, as in "
            "nonnegative(weighted(L1(1e-3), weights))"
        )
    return Weighted(penalty, weights)


def _step_for(penalty: Penalty, weights: Tree, width: Number) -> jax.Array:
    """The step whose dead zone is `width` for a piece of weight 1."""
    step = penalty.step_for(width)
    if penalty.facts.is_convex:
        return step
    # The prox must not jump at the largest weight either.
    tops = (jnp.max(jnp.asarray(w)) for w in jax.tree.leaves(weights))
    return step / functools.reduce(jnp.maximum, tops, jnp.ones(()))
