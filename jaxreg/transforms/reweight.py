"""Weights on a penalty, recomputed from the parameters every few steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxreg._core.checks import check_numbers
from jaxreg._core.layout import Groups
from jaxreg._core.leafwise import Elementwise, Groupwise
from jaxreg._core.messages import shown
from jaxreg._core.penalty import Number, Penalty, Tree, wide_dtype, widened
from jaxreg._core.ranges import check_positive
from jaxreg.calculus.weighted import weighted
from jaxreg.rules.by_path import Leaves, Part, penalties_of
from jaxreg.transforms._leaves import (
    NEW_STATE,
    check_state,
    check_steps,
    read_start,
    read_update,
    zeroed_units,
)

_BUILD = (
    "a function that makes an Optax transformation of a penalty, as lambda p: "
    "jaxreg.prox_adam(1e-3, p)"
)

Build = Callable[[Penalty], optax.GradientTransformation]


class ReweightState(NamedTuple):
    """Weights (`MaskedNode` for free leaves), the inner state, and the step count."""

    penalty_weights: Tree
    built: optax.OptState
    reweight_count: jax.Array


def reweight(
    build: Build, penalty: Penalty, eps: Number, every: int
) -> optax.GradientTransformationExtraArgs:
    r"""Reweighted penalties: every few steps large weights become cheaper.

    Runs `build(penalty)` with the units of the penalty, entries or groups, weighted by

        `weight = eps / (|x| + eps)`, for a group `|x|` its root mean square,

    recomputed from the parameters every `every` updates; the first weights are 1. A
    fixed point is a stationary point of loss + sum of `strength eps log(1 + |x| / eps)`
    for `L1(strength)`, that is of `LogSum(strength * eps, eps)`: zeros as with L1, and
    hardly any bias where `|x|` is many eps. `build` may use any transformation:

        `reweight(lambda p: regularize(optax.adam(1e-3), p), L1(1e-4), 0.1, 100)`

    `prox_adam`, `shrink`, ... work as well. It stores a weight per unit.

    Args:
      build: returns a transformation for a penalty, of the same kind at every call.
      penalty: a penalty that can be `weighted`, or rules of such penalties.
      eps: > 0, in units of a weight: the size below which a weight counts as small.
      every: the number of updates between recomputations, an int >= 1.

    Raises:
      TypeError, ValueError: an argument out of range, a penalty without units to
        weight, an error of the transformation; at an update, a state that was made for
        other rules.

    Reference: Candes, Wakin and Boyd 2008, Enhancing sparsity by reweighted l1
    minimization, section 2.2.

    >>> import jax, jax.numpy as jnp, optax, jaxreg
    >>> goal = jnp.array([3.0, 0.5])
    >>> tx = jaxreg.reweight(
    ...     lambda p: jaxreg.prox_sgd(0.1, p), jaxreg.L1(1.0), eps=0.1, every=20
    ... )
    >>> w = jnp.zeros(2)
    >>> state = tx.init(w)
    >>> for _ in range(200):
    ...     updates, state = tx.update(w - goal, state, w)
    ...     w = optax.apply_updates(w, updates)
    >>> print(f"{w[0]:.2f} {w[1]:.2f}")
    2.97 0.00
    """
    _check_arguments(build, penalty, eps, every)
    first = _transformation(build, weighted(penalty, 1.0))

    def init(params: Tree) -> ReweightState:
        leaves = read_start(penalty, params)
        weights: list[Any] = [optax.MaskedNode()] * len(leaves.leaves)
        for index, ones in _first_weights(leaves).items():
            weights[index] = ones
        count = jnp.zeros([], jnp.int32)
        return ReweightState(leaves.tree(weights), first.init(params), count)

    def update(
        updates: Tree, state: ReweightState, params: Tree | None = None, **extra: Any
    ) -> tuple[Tree, ReweightState]:
        check_state("reweight", state, ReweightState)
        leaves, _, (weights,) = read_update(
            "reweight", penalty, updates, params, (state.penalty_weights,)
        )
        _check_weights(leaves, weights)
        count = state.reweight_count
        is_due = (count > 0) & (count % every == 0)
        for part in leaves.parts:
            wide = [widened(leaf) for leaf in part.pick(leaves.leaves)]
            sizes = zeroed_units(part.penalty).unit_sizes(wide)
            for index, size in zip(_holders(part), sizes, strict=True):
                fresh = (eps / (size + eps)).astype(size.dtype)
                weights[index] = jnp.where(is_due, fresh, weights[index])
        tree = leaves.tree(weights)
        tx = _transformation(build, weighted(penalty, tree))
        params = leaves.tree(leaves.leaves)
        moves, built = tx.update(updates, state.built, params, **extra)
        return moves, ReweightState(tree, built, optax.safe_increment(count))

    return optax.GradientTransformationExtraArgs(init, update)


def _check_arguments(build: Build, penalty: Penalty, eps: Number, every: int) -> None:
    check_numbers(penalty, build=build)
    if not callable(build):
        raise TypeError(f"reweight: build is {shown(build)}; allowed: {_BUILD}")
    check_positive("reweight: eps", eps)
    check_steps("reweight: every", every, least=1)
    if not all(map(_has_weights, penalties_of(penalty))):
        raise TypeError(
            f"reweight({shown(penalty)}): allowed are penalties on single entries or "
            "on groups, such as L1 and GroupLasso, and by_path of them"
        )


def _has_weights(penalty: Penalty) -> bool:
    """True if each of its units can have a weight."""
    layout, is_of_units = penalty.layout, penalty.facts.zeros == "units"
    if layout.spans_leaves:
        return is_of_units and penalty.weigh_units(1.0) is not None
    is_group = isinstance(layout, Groups) and is_of_units
    return isinstance(penalty, Elementwise | Groupwise) and (
        is_group or penalty.facts.is_separable
    )


def _check_weights(leaves: Leaves, weights: list[Any]) -> None:
    """Raises if the state was made for other parameters or rules."""
    wanted: list[tuple[int, ...] | None] = [None] * len(leaves.leaves)
    for index, ones in jax.eval_shape(lambda: _first_weights(leaves)).items():
        wanted[index] = ones.shape
    for index, (weight, shape) in enumerate(zip(weights, wanted, strict=True)):
        is_free = isinstance(weight, optax.MaskedNode)
        has_shape = None if is_free else jnp.shape(weight)
        if has_shape != shape:
            raise ValueError(
                f"reweight: the state holds weights of shape {has_shape} for leaf "
                f"{leaves.names[index]!r}, and its penalty needs {shape} (None: it is "
                f"free); {NEW_STATE}, or of the rules"
            )


def _transformation(
    build: Build, penalty: Penalty
) -> optax.GradientTransformationExtraArgs:
    tx = build(penalty)
    if not isinstance(tx, optax.GradientTransformation):
        raise TypeError(f"reweight: build gave {shown(tx)}; allowed: {_BUILD}")
    return optax.with_extra_args_support(tx)


def _holders(part: Part) -> tuple[int, ...]:
    """The leaves at which the state holds the weights of a rule's units."""
    return part.indices[:1] if part.penalty.layout.spans_leaves else part.indices


def _first_weights(leaves: Leaves) -> dict[int, jax.Array]:
    """A weight of 1 for every unit, by the leaf that holds it."""
    return {
        index: ones
        for part in leaves.parts
        if part.indices
        for index, ones in zip(_holders(part), _ones(part, leaves), strict=True)
    }


def _ones(part: Part, leaves: Leaves) -> list[jax.Array]:
    """The weights of 1 of a rule; `init` may know the shapes of its leaves alone."""
    layout, own = zeroed_units(part.penalty), part.pick(leaves.leaves)
    if any(part.penalty.layout.refusal(jnp.shape(leaf)) for leaf in own):
        # The error at the first update names the leaf.
        return [jnp.ones([], jnp.float32)] * len(_holders(part))
    if any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in own):
        wide = [jax.ShapeDtypeStruct(jnp.shape(x), wide_dtype(x)) for x in own]
        units = jax.eval_shape(layout.unit_sizes, wide)
        return [jnp.ones(each.shape, each.dtype) for each in units]
    return list(map(jnp.ones_like, layout.unit_sizes(list(map(widened, own)))))
