"""A penalty on the distance from a reference."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from jaxreg._core.checks import check_penalty
from jaxreg._core.constraint import Constraint
from jaxreg._core.layout import Layout, Shape
from jaxreg._core.messages import shown
from jaxreg._core.penalty import Facts, Number, Penalty, Tree, widened
from jaxreg._core.pytree import pytree_dataclass, signed
from jaxreg.calculus.lift import (
    Fitted,
    Lift,
    aligned,
    broadcasts,
    cast_like,
    is_single,
    one_per_leaf,
    step_tree,
    unless_zero_step,
    widened_tree,
)


@pytree_dataclass
class Anchored(Lift):
    """The result of `anchored`."""

    penalty: Penalty
    reference: Tree = signed()

    @property
    def facts(self) -> Facts:
        # The prox returns the reference where the inner penalty returns 0.
        facts = self.penalty.facts
        return facts.but(
            is_joint=facts.is_joint or not is_single(self.reference),
            zeros=None,
            is_absolute=False,
            is_homogeneous=False,
            is_radial=False,
        )

    @property
    def layout(self) -> Layout:
        inner = self.penalty.layout
        if not is_single(self.reference):
            return inner
        return Fitted(inner, functools.partial(_misfit, jnp.shape(self.reference)))

    def value(self, params: Tree) -> jax.Array:
        return self.penalty.value(self._moves(params))

    def subgradient(self, params: Tree) -> Tree:
        return cast_like(self.penalty.subgradient(self._moves(params)), params)

    def prox(self, params: Tree, step: Number | Tree) -> Tree:
        steps = step_tree(params, step)
        wide = widened_tree(params)
        moves = self.penalty.prox(self._moves(params), steps)
        return cast_like(unless_zero_step(steps, self._back(moves), wide), params)

    def stationarity(self, params: Tree, grads: Tree) -> Tree:
        return self.penalty.stationarity(self._moves(params), grads)

    def _nearest(self, latent: Tree, params: Tree, step: Number) -> Tree:
        moves = self._moves(latent), self._moves(params)
        nearest = self._back(self.penalty._nearest(*moves, step))

        def untouched(z: jax.Array, new: jax.Array, leaf: jax.Array) -> jax.Array:
            # The sum with the reference rounds relative to the reference.
            slack = 4 * jnp.finfo(z.dtype).eps * (jnp.abs(leaf - new) + jnp.abs(new))
            return jnp.where(jnp.abs(z - new) <= slack, z, new)

        return jax.tree.map(untouched, latent, nearest, params)

    def _moves(self, params: Tree) -> Tree:
        """`params - reference`, in at least float32."""
        paths_and_leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
        origins = one_per_leaf(params, self.reference, "reference")
        moves = []
        for (path, leaf), origin in zip(paths_and_leaves, origins, strict=True):
            reason = _misfit(jnp.shape(origin), jnp.shape(leaf))
            if reason is not None:
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                raise ValueError(
                    f"{shown(self)} on leaf {name!r} of shape {jnp.shape(leaf)}: the "
                    f"leaf {reason}. Pass the parameters themselves as reference"
                )
            wide = widened(leaf)
            moves.append(wide - _origin(origin, wide))
        return jax.tree.unflatten(treedef, moves)

    def _back(self, moves: Tree) -> Tree:
        """`reference + moves`."""
        leaves, treedef = jax.tree.flatten(moves)
        origins = one_per_leaf(moves, self.reference, "reference")
        pairs = zip(origins, leaves, strict=True)
        return jax.tree.unflatten(treedef, [_origin(o, x) + x for o, x in pairs])


def _origin(origin: Number, leaf: jax.Array) -> jax.Array:
    return aligned(jnp.asarray(origin).astype(leaf.dtype), leaf)


def _misfit(origin: Shape, shape: Shape) -> str | None:
    if broadcasts(origin, shape):
        return None
    return f"takes a reference of its shape; this has shape {origin}"


def anchored(penalty: Penalty, reference: Number | Tree) -> Penalty:
    """The penalty of the distance from a reference, `h(x - reference)`.

    Use it to fine-tune: `anchored(L2(s), pretrained)` is L2-SP, and
    `anchored(L1(s), pretrained)` changes few weights. The zeros of the penalty are
    zeros of `x - reference`: there the prox returns the reference itself, exactly if it
    has the parameters' dtype. Half precision is subtracted in float32.

    Args:
      penalty: any penalty but a constraint, or rules of such penalties.
      reference: numbers of any sign. A number; an array that broadcasts to each leaf;
        or a tree with the structure of the parameters, with rules their paths.

    Raises:
      TypeError: `penalty` is not a penalty, or is a constraint.
      ValueError: `reference` holds NaN; a rule catches no leaf of it; at use, it does
        not fit its leaf.

    Reference: Li, Grandvalet and Davoine 2018, Explicit inductive bias for transfer
    learning with convolutional networks.

    >>> import jax.numpy as jnp, jaxreg
    >>> penalty = jaxreg.anchored(jaxreg.L1(0.5), jnp.array([1.0, 1.0]))
    >>> penalty.prox(jnp.array([3.0, 1.25]), step=1.0)
    Array([2.5, 1. ], dtype=float32)
    """
    check_penalty(penalty, reference=reference)
    return penalty.distribute(_anchored, reference)


def _anchored(penalty: Penalty, reference: Tree) -> Anchored:
    if isinstance(penalty, Constraint):
        raise TypeError(
            f"anchored({shown(penalty)}, ...): a constraint is told inside from "
            "outside by the rounding of its own numbers, which a reference changes. "
            "Allowed are penalties, such as L2(1e-3)"
        )
    return Anchored(penalty, reference)
