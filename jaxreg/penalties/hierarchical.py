"""The hierarchical penalty of LassoNet."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from jaxreg._core import groups
from jaxreg._core.constraint import are_apart
from jaxreg._core.layout import Entries, Shape
from jaxreg._core.leafwise import (
    RESIDUAL_WIDTH,
    all_finite,
    nan_unless,
    without_negative_zero,
)
from jaxreg._core.messages import shown
from jaxreg._core.penalty import (
    Facts,
    Number,
    Penalty,
    Tree,
    grads_like,
    ratio,
    steps_like,
    widened,
)
from jaxreg._core.pytree import pytree_dataclass, static
from jaxreg.calculus.lift import widened_tree
from jaxreg.penalties.l1 import L1, soft_threshold

_Pair = tuple[jax.Array, jax.Array]
"""An array of the skip kernel and one of the first layer."""
_Lines = tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]
"""Shrunk skip norms, first-layer weights, a factor for each leaf, bound."""


class _Kernels(Entries):
    """Layout of kernels with one row per input."""

    def refusal(self, shape: Shape) -> str | None:
        is_kernel = len(shape) >= 2
        return (
            None if is_kernel else "has fewer than two axes, and axis 0 is the inputs"
        )


@pytree_dataclass
class Hierarchical(Penalty):
    r"""The LassoNet penalty: a feature may enter a network only with its skip weight.

    On two leaves of one rule, a linear skip kernel `(inputs, outputs)` and the kernel
    `(inputs, ...)` of the first hidden layer, it is over the inputs `j`

        strength * sum_j ||skip_j||  subject to  |first_jk| <= bound * ||skip_j||,

    so that an input whose skip weights are 0 has no effect on the network. Add the skip
    connection to the model and write
    `by_path([(r"^(skip|hidden_0)/kernel$", Hierarchical(1.0, 10.0, skip=1))])`. Put
    `L2` on the later kernels: otherwise they grow, and the first layer shrinks below
    its bound at no cost. The set is not convex, but the prox is exact. The subgradient
    at 0 is 0 and ignores the bound; `stationarity` is the prox residual. Under
    `regularize`, parameters off the set start at its nearest point, but with a large
    bound hardly any input dies: noise in the first layer counts `bound` times against
    its dead zone. Follow the paper and use `prox_sgd` with momentum and a rising
    `schedule`. bfloat16 is computed in float32.

    Args:
      strength: >= 0, in units of loss per unit of weight.
      bound: >= 0, `M` in the paper, where 10 works well; 0 leaves the linear model.
      skip: 0 or 1, the index of the skip kernel among the two leaves, in tree order
        (alphabetical in a dict of layers).
      l1: >= 0, the strength of a further term, `l1 * sum |first|`.

    Raises:
      ValueError: `skip` is not 0 or 1; at use, there are not two leaves, or they
        differ in the length of axis 0.

    Reference: Lemhadri, Ruan, Abraham and Tibshirani 2021, LassoNet: a neural network
    with feature sparsity, algorithm 2.

    >>> import jax.numpy as jnp, jaxreg
    >>> penalty = jaxreg.Hierarchical(1.0, 1.0, skip=0)
    >>> penalty.prox([jnp.array([[3.0], [0.5]]), jnp.array([[4.0], [0.1]])], 1.0)
    [Array([[3.],
           [0.]], dtype=float32), Array([[3.],
           [0.]], dtype=float32)]
    """

    strength: Number
    bound: Number
    skip: int = static()
    l1: Number = 0.0

    facts = Facts(is_convex=False, is_joint=True, stationarity_kind="residual")

    def __post_init__(self) -> None:
        if not groups.is_int(self.skip) or self.skip not in (0, 1):
            raise ValueError(
                f"Hierarchical: skip is {shown(self.skip)}; allowed: 0 or 1, which of "
                "the two leaves is the skip kernel"
            )

    @property
    def layout(self) -> _Kernels:
        return _Kernels()

    def step_for(self, width: Number) -> jax.Array:
        """The step whose prox just zeroes inputs with skip weights of norm `width`."""
        return ratio(width, self.strength)

    def _nearest(self, latent: Tree, params: Tree, step: Number) -> Tree:
        if not jax.tree.leaves(params):
            return latent
        # Off the set, no latent has these parameters as its prox.
        projection = dataclasses.replace(self, strength=0.0, l1=0.0)
        return super()._nearest(latent, projection.prox(params, 1.0), step)

    def value(self, params: Tree) -> jax.Array:
        skip, first = self._rows(params)
        value = jnp.sum(self.strength * _norms(skip))
        value = value + jnp.sum(L1(self.l1).leaf_values(first))
        off = jax.lax.stop_gradient(self._is_off(params))
        return value + jnp.where(off, jnp.inf, jnp.zeros((), jnp.float32))

    def subgradient(self, params: Tree) -> Tree:
        skip, first = self._rows(params)
        sizes = _norms(skip)
        pull = self.strength * (skip / jnp.where(sizes > 0, sizes, 1.0))
        return self._joined(params, pull, L1(self.l1).leaf_subgradient(first))

    def prox(self, params: Tree, step: Number | Tree) -> Tree:
        rows, steps = self._rows(params), steps_like(params, step)
        for s in steps:
            if s.size > 1:
                raise ValueError(
                    f"prox of {shown(self)}: a step of shape {s.shape} varies within a "
                    "leaf that the penalty couples, and no prox is known for that. Use "
                    "jaxreg.regularize, whose step is one number for any optimizer, or "
                    "pass one step per leaf"
                )
        skip_step, first_step = (steps[index].reshape(()) for index in self._indices)
        if not rows[0].size or not rows[1].size:
            return params
        is_finite = all_finite(rows[0], (1,)) & all_finite(rows[1], (1,))
        skip, first = (jnp.where(is_finite, x, 0) for x in rows)
        pair = self._pair_prox((skip, first), (skip_step, first_step))
        skip, first = (nan_unless(is_finite, x) for x in pair)
        proxes = self._joined(params, skip, first)
        return jax.tree.map(without_negative_zero, proxes)

    def stationarity(self, params: Tree, grads: Tree) -> Tree:
        wide, treedef = widened_tree(params), jax.tree.structure(params)
        pulls = map(widened, grads_like(params, grads))
        step = self.step_for(RESIDUAL_WIDTH)
        ahead = jax.tree.map(
            lambda leaf, pull: leaf - step.astype(leaf.dtype) * pull,
            wide,
            jax.tree.unflatten(treedef, pulls),
        )
        back = self.prox(ahead, step)
        return jax.tree.map(
            lambda x, y: jnp.abs(x - y) / step.astype(x.dtype), wide, back
        )

    def _pair_prox(self, rows: _Pair, steps: _Pair) -> _Pair:
        """The prox of both kernels, with a step for each.

        Given the norm of a skip row, the row keeps its direction and the first layer is
        clipped; `_radius` is the optimal norm.
        """
        skip, first = rows
        skip_step, first_step = (
            s.astype(x.dtype) for x, s in zip(rows, steps, strict=True)
        )
        shrunk = soft_threshold(first, self.l1 * first_step)
        sizes = _norms(skip)
        radius, is_clipped = self._radius(sizes, shrunk, (skip_step, first_step))
        # A row of zeros has no direction, and all directions are equally good.
        even = jnp.full_like(skip, skip.shape[1] ** -0.5)
        unit = jnp.where(sizes > 0, skip / jnp.where(sizes > 0, sizes, 1.0), even)
        limit, sign = self.bound * radius, jnp.sign(shrunk)
        excess = jax.lax.stop_gradient(jnp.maximum(jnp.abs(shrunk) - limit, 0.0))
        clipped = jnp.where(is_clipped, sign * limit, shrunk - sign * excess)
        return (
            jnp.where(skip_step > 0, unit * radius, skip),
            jnp.where(first_step > 0, clipped, first),
        )

    def _radius(self, sizes: jax.Array, rows: jax.Array, steps: _Pair) -> _Pair:
        """The norm of each skip row after the prox, and the weights that it clips."""
        skip_step, first_step = steps
        total = skip_step + first_step
        total = jnp.where(total > 0, total, 1.0)
        by_skip, by_first = first_step / total, skip_step / total
        base = by_skip * (sizes - self.strength * skip_step)
        weights = jnp.abs(rows)
        bound = jnp.asarray(self.bound).astype(rows.dtype)
        lines = (base, weights, by_skip, by_first, bound)
        # A small move does not change which weights are clipped: the derivative of the
        # radius is that of the root of its line.
        radius = _best_radius(jax.lax.stop_gradient(lines))
        is_clipped = weights >= bound * radius
        # A zero pulls at no bound.
        return _line_root(lines, is_clipped & (weights > 0), radius), is_clipped

    @property
    def _indices(self) -> tuple[int, int]:
        return self.skip, 1 - self.skip

    def _rows(self, params: Tree) -> _Pair:
        """The skip kernel and the first layer's, as matrices of at least float32."""
        leaves = jax.tree.leaves(params)
        shapes = [jnp.shape(leaf) for leaf in leaves]
        if len(leaves) != 2:
            raise ValueError(
                f"{shown(self)} acts on two leaves, the skip kernel and the first "
                f"layer's, and was given leaves of shapes {shapes}. Write a rule that "
                "catches "
                r"those two, as by_path([(r'^(skip|hidden_0)/kernel$', penalty)])"
            )
        if any(len(shape) < 2 for shape in shapes) or shapes[0][0] != shapes[1][0]:
            raise ValueError(
                f"{shown(self)} acts on two kernels with one row per input, and was "
                f"given leaves of shapes {shapes}"
            )
        skip, first = (widened(leaves[index]) for index in self._indices)
        return _as_matrix(skip), _as_matrix(first)

    def _joined(self, params: Tree, skip: jax.Array, first: jax.Array) -> Tree:
        """Returns the matrices as a tree like `params`, with its shapes and dtypes."""
        leaves, treedef = jax.tree.flatten(params)
        pair = (first, skip) if self.skip else (skip, first)
        shaped = [
            new.reshape(jnp.shape(leaf)).astype(leaf.dtype)
            for new, leaf in zip(pair, leaves, strict=True)
        ]
        return jax.tree.unflatten(treedef, shaped)

    def _is_off(self, params: Tree) -> jax.Array:
        """True if the bound is exceeded by more than rounding, as for a constraint."""
        skip, first = self._rows(params)
        limit = self.bound * _norms(skip)
        leaf = jax.tree.leaves(params)[1 - self.skip]
        return are_apart([leaf], [first], [jnp.clip(first, -limit, limit)])


@jax.jit
def _best_radius(lines: _Lines) -> jax.Array:
    """The norm of each skip row that minimises the objective.

    The derivative of the objective with respect to this norm is the minimum of
    increasing lines, one per number of clipped weights. Newton's method from 0, where
    all weights are clipped, increases to the root in one step per line that it meets,
    some five in all.
    """

    base, weights, *_, bound = lines

    def rise(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        radius, _ = state
        is_clipped = weights > bound * radius
        root = _line_root(lines, is_clipped, radius)
        return jnp.maximum(root, radius), jnp.any(root > radius)

    start = jnp.zeros_like(base), jnp.array(True)
    return jax.lax.while_loop(lambda state: state[1], rise, start)[0]


def _line_root(lines: _Lines, is_clipped: jax.Array, fallback: jax.Array) -> jax.Array:
    """The zero of the line for these clipped weights, or 0 if that is negative."""
    base, weights, by_skip, by_first, bound = lines
    pull = jnp.sum(jnp.where(is_clipped, weights, 0.0), axis=1, keepdims=True)
    count = jnp.sum(is_clipped, axis=1, keepdims=True)
    slope = by_skip + by_first * bound * bound * count
    root = (base + by_first * bound * pull) / jnp.where(slope > 0, slope, 1.0)
    return jnp.maximum(jnp.where(slope > 0, root, fallback), 0.0)


def _as_matrix(leaf: jax.Array) -> jax.Array:
    return leaf.reshape(leaf.shape[0], math.prod(leaf.shape[1:]))


def _norms(skip: jax.Array) -> jax.Array:
    """The norm of each row, as an axis of length 1; its gradient at 0 is 0."""
    if not skip.size:
        return jnp.zeros((skip.shape[0], 1), skip.dtype)
    return skip.shape[1] ** 0.5 * groups.root_mean_square(skip, (0,))
