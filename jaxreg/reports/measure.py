"""Scalar measures of parameters. All are pure and run inside jit."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxreg._core.checks import MOST, check_prox
from jaxreg._core.constraint import Constraint
from jaxreg._core.messages import shown
from jaxreg._core.penalty import Penalty, Tree, leaves_like, widened
from jaxreg._core.shards import check_whole_leaf
from jaxreg.calculus.weighted import weighted
from jaxreg.rules.by_path import Leaves, paths, read
from jaxreg.solve._general import relative_stationarity
from jaxreg.transforms.latent import RegularizeState, states_of
from jaxreg.transforms.reweight import ReweightState
from jaxreg.transforms.target_sparsity import TargetSparsityState, warn_if_missed

# Factors are sought within 2^-100 to 2^100 times the largest gradient: float32 reaches
# 2^126, which leaves the penalty 26 octaves for numbers of its own.
_OCTAVES = 100

# Units of rounding, at the root mean square of a leaf, by which an update may miss the
# prox: `params + (prox - params)` rounds twice.
_ROUNDING = 4


def zeros(leaf: jax.Array) -> jax.Array:
    """The number of entries that are exactly zero."""
    return _count([jnp.asarray(leaf) == 0])


def dead_units(penalty: Penalty, leaves: list[jax.Array]) -> jax.Array | None:
    """The number of units of a rule that are all zero; None if units are entries."""
    leaves, layout = list(map(jnp.asarray, leaves)), penalty.layout
    if layout.dead_in_leaves(leaves) is None:
        return None
    return _total(jnp.sum(sizes == 0) for sizes in layout.unit_sizes(leaves))


def norm(leaf: jax.Array) -> jax.Array:
    """The Euclidean norm."""
    return jnp.sqrt(jnp.sum(jnp.abs(widened(leaf)) ** 2))


def zero_share(penalty: Penalty, params: Tree) -> jax.Array:
    """The share of exact zeros among the entries of the penalised leaves."""
    return _share([leaf == 0 for leaf in _penalised(penalty, params)])


def stationarity_rms(penalty: Penalty, params: Tree, grads: Tree) -> jax.Array:
    """Root mean square of `penalty.stationarity` over the penalised leaves."""
    return _rms(_penalised(penalty, penalty.stationarity(params, grads)))


def measure(
    penalty: Penalty,
    params: Tree,
    grads: Tree | None = None,
    opt_state: Tree | None = None,
    previous: Tree | None = None,
    *,
    per_leaf: bool = False,
) -> dict[str, jax.Array]:
    """Scalars that describe the penalised leaves, for any logger; runs inside jit.

    Returns:
      `zeros`, the number of entries exactly 0 (from 2^31 entries on in float32);
      `zero_share`, their share of all entries; `penalty`, its value; with groups
      `dead_groups`, the number of groups that are all zero. With `grads`, the gradient
      of the loss at `params`, `stationarity`: the root mean square over entries of the
      distance to a minimum of loss + penalty; and `relative_stationarity`, the largest
      such distance over the largest gradient of a penalised entry, which tells what has
      converged whatever the strength, as in `minimise`: 1e-3 is solved for most uses,
      0.1 is not. With `opt_state`, the state of an
      optimizer that holds one of jaxreg's transformations, `strength_factor`: the
      factor by which a schedule or `target_sparsity` multiplied the strengths at the
      last update; for `target_sparsity` also `missed_units`, by how many units its
      landing missed the target, with a warning outside jit if it did. If it is one
      `regularize`, also `pulled`: the share of non-zero
      entries whose latent does not belong to `params`, so that the next update has to
      move it. It is 0 up to rounding unless something behind `regularize` changes its
      updates, or `params` are edited or averaged. Changes of the gradients in front of
      it show in `stationarity` instead, and in `check`. With `previous`, earlier
      parameters, `flips`: the number of entries that became zero or non-zero. With
      `per_leaf`, also the share of zeros, the norm,
      `dead_groups` of each penalised leaf, and its `stationarity` and `flips` where
      those are given, under keys such as `zero_share/dense/kernel`.

    Raises:
      TypeError, ValueError: a rule catches no leaf, the penalty cannot take a leaf, the
        structures or shapes of trees differ, the state has no factor or several, or a
        leaf is a per-device shard inside `shard_map`.

    >>> import jax.numpy as jnp, jaxreg
    >>> w, before = jnp.array([1.0, 0.0, 0.0]), jnp.array([1.0, 2.0, 0.0])
    >>> scalars = jaxreg.measure(jaxreg.L1(0.5), w, previous=before)
    >>> {name: round(float(number), 3) for name, number in scalars.items()}
    {'zeros': 2.0, 'zero_share': 0.667, 'penalty': 0.5, 'flips': 1.0}
    """
    leaves = read(penalty, params)
    _check_whole("measure", leaves)
    scalars = {
        "zeros": _count([leaf == 0 for leaf in _penalised(penalty, params)]),
        "zero_share": zero_share(penalty, params),
        "penalty": penalty.value(params),
    }
    dead = [dead_units(part.penalty, part.pick(leaves.leaves)) for part in leaves.parts]
    if any(count is not None for count in dead):
        scalars["dead_groups"] = _total(count for count in dead if count is not None)
    if grads is not None:
        scalars["stationarity"] = stationarity_rms(penalty, params, grads)
        scalars["relative_stationarity"] = relative_stationarity(penalty, params, grads)
    if opt_state is not None:
        scalars["strength_factor"] = _strength_factor(opt_state)
        scalars |= _pulled(penalty, params, opt_state)
        for _, missed in optax.tree.get_all_with_path(opt_state, "missed_units"):
            warn_if_missed(missed)
            scalars["missed_units"] = jnp.asarray(missed)
    flips: dict[int, jax.Array] = {}
    if previous is not None:
        hint = "pass earlier parameters of the same model"
        earlier = leaves_like(params, previous, "previous", hint)
        flips = {
            index: (leaves.leaves[index] == 0) != (earlier[index] == 0)
            for index in leaves.penalised
        }
        scalars["flips"] = _count(list(flips.values()))
    if per_leaf:
        pulls = None if grads is None else penalty.stationarity(params, grads)
        scalars |= _per_leaf(leaves, jax.tree.leaves(pulls), flips)
    return scalars


def _per_leaf(
    leaves: Leaves, pulls: list[jax.Array], flips: dict[int, jax.Array]
) -> dict[str, jax.Array]:
    """The numbers of `measure` that a single leaf has, under its path."""
    whole = {index: jnp.asarray(leaves.leaves[index]) for index in leaves.penalised}
    dead: dict[int, jax.Array] = {}
    for part in leaves.parts:
        counts = part.penalty.layout.dead_in_leaves(part.pick(whole))
        dead |= dict(zip(part.indices, counts or [], strict=False))
    numbers = {
        "zero_share": {index: _share([leaf == 0]) for index, leaf in whole.items()},
        "norm": {index: norm(leaf) for index, leaf in whole.items()},
        "dead_groups": dead,
        "stationarity": {index: _rms([pulls[index]]) for index in whole if pulls},
        "flips": {index: _count([mask]) for index, mask in flips.items()},
    }
    return {
        f"{key}/{leaves.names[index]}": number
        for key, by_leaf in numbers.items()
        for index, number in by_leaf.items()
    }


def _check_whole(name: str, leaves: Leaves) -> None:
    for index in leaves.penalised:
        reason = "its numbers are sums over all the parts"
        leaf = leaves.leaves[index]
        check_whole_leaf(f"{name}: leaf {leaves.names[index]!r}", leaf, reason)


def _strength_factor(opt_state: Tree) -> jax.Array:
    factors = optax.tree.get_all_with_path(opt_state, "strength_factor")
    if len(factors) != 1:
        raise ValueError(
            f"measure: opt_state holds {len(factors)} transformations of jaxreg that "
            "apply a strength; allowed: exactly one. Pass the part of the state that "
            "you mean; of an nnx.Optimizer, nnx.as_pure(optimizer.opt_state)"
        )
    # A copy: a variable of nnx would change with the optimizer.
    return jnp.asarray(factors[0][1])


def _pulled(penalty: Penalty, params: Tree, opt_state: Tree) -> dict[str, jax.Array]:
    """The share `pulled` of `measure`, if the state has latents of these parameters."""
    states = states_of(opt_state, RegularizeState)
    if len(states) != 1:
        return {}
    for outer in states_of(opt_state, ReweightState):
        penalty = weighted(penalty, outer.penalty_weights)
    # Once it has landed, the latents of `target_sparsity` are the parameters.
    may_land = bool(states_of(opt_state, TargetSparsityState))
    tree, width = states[0].latent, jnp.asarray(states[0].width)
    latents = dict(zip(paths(tree), jax.tree.leaves(tree), strict=True))
    leaves = Leaves(penalty, params)
    moved, counted = [], []
    for part in leaves.parts:
        names = part.pick(leaves.names)
        if not set(names) <= set(latents):
            continue
        own = list(map(jnp.asarray, part.pick(leaves.leaves)))
        stored = [jnp.asarray(latents[name]) for name in names]
        step = part.penalty.step_for(width)
        nearest = part.penalty.nearest_latent(stored, own, step)
        for leaf, latent, new in zip(own, stored, nearest, strict=True):
            is_moved = _are_apart(leaf, latent, new)
            if may_land:
                is_moved &= _are_apart(leaf, latent, leaf)
            moved.append(is_moved)
            counted.append(is_moved | (leaf != 0))
    if not moved:
        return {}
    return {"pulled": _count(moved) / jnp.maximum(_count(counted), 1)}


def _are_apart(leaf: jax.Array, latent: jax.Array, other: jax.Array) -> jax.Array:
    """Mask of latents that differ by more than rounding of the leaf's updates."""
    unit = float(jnp.finfo(leaf.dtype).eps) * norm(leaf) / max(leaf.size, 1) ** 0.5
    return jnp.abs(latent - other) > _ROUNDING * unit


class MaxStrength(NamedTuple):
    """The factor of every leaf, 0 where it is free, and the largest of them."""

    per_leaf: Tree
    overall: jax.Array


def max_strength(penalty: Penalty, grads: Tree) -> MaxStrength:
    """The smallest factor on the penalty at which all weights 0 is stationary.

    For a penalty of strength 1 it is the strength itself: for `L1(1.0)` the largest
    entry of `grads`, for `GroupLasso(1.0, axis)` the largest root mean square of a
    group; with `scaled(penalty, factor)` a grid of strengths starts there and goes
    down. It is 0 if zero is stationary at any strength (L0), infinite if at none (L2).
    Entries, groups and leaves without a penalty, of weight or strength 0, are left out.
    A penalty that couples leaves has one factor for them all.

    In a network of two layers or more the gradients at zero weights are all 0: with
    gradients at the current weights the factor is only the scale of the strengths that
    have an effect. It is found by bisection, to rounding if the `stationarity` of the
    penalty is a distance, else to 64 units of rounding; it runs inside jit.

    Args:
      penalty: any penalty with a prox except constraints, or rules of such penalties.
      grads: the gradient of the loss at zero weights, with the structure of the
        parameters.

    Raises:
      TypeError: a constraint, or a penalty without a prox.
      ValueError: a rule catches no leaf, or the penalty cannot take a leaf.

    >>> import jax.numpy as jnp, jaxreg
    >>> grads = {"kernel": jnp.array([[3.0, 4.0], [0.0, -6.0]]), "bias": jnp.ones(2)}
    >>> factors = jaxreg.max_strength(jaxreg.on_kernels(jaxreg.L1(1.0)), grads)
    >>> print({name: round(float(leaf), 5) for name, leaf in factors.per_leaf.items()})
    {'bias': 0.0, 'kernel': 6.0}
    """
    leaves = read(penalty, grads)
    factors = [jnp.zeros(())] * len(leaves.leaves)
    _check_whole("max_strength", leaves)
    for part in leaves.parts:
        if isinstance(part.penalty, Constraint):
            raise TypeError(
                f"max_strength({shown(part.penalty)}, ...): a constraint has no "
                "strength. Allowed are penalties with a prox, and by_path of them"
            )
        check_prox("max_strength", part.penalty)
        if not part.indices:
            continue
        is_joint = part.penalty.facts.is_joint
        for indices in [part.indices] if is_joint else [(i,) for i in part.indices]:
            pulls = [widened(leaves.leaves[index]) for index in indices]
            factor = _smallest_factor(part.penalty, pulls)
            for index in indices:
                factors[index] = factor
    overall = functools.reduce(jnp.maximum, factors, jnp.zeros(()))
    return MaxStrength(leaves.tree(factors), overall)


@jax.jit
def _smallest_factor(penalty: Penalty, pulls: list[jax.Array]) -> jax.Array:
    """The smallest factor on the penalty at which leaves of zeros are stationary."""
    pulls = _penalised_pulls(penalty, pulls)
    largest = _largest(pulls)
    scale = jnp.where(largest > 0, largest, 1.0)
    units = [pull / scale.astype(pull.dtype) for pull in pulls]
    # Without the barrier XLA spends seconds on constant folding.
    zero = jax.lax.optimization_barrier([jnp.zeros_like(pull) for pull in pulls])
    bounds = jnp.finfo(scale.dtype)
    # A residual is computed by a prox and is 0 up to rounding.
    is_exact = penalty.facts.stationarity_kind == "distance"
    slack = 0.0 if is_exact else 64 * bounds.eps

    def is_stationary(factor: jax.Array) -> jax.Array:
        scaled = [unit / factor.astype(unit.dtype) for unit in units]
        distance = _largest(penalty.stationarity(zero, scaled))
        return distance <= slack * _largest(scaled)

    def bisect(
        _: int, ends: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = jnp.sqrt(low * high)
        is_high = is_stationary(middle)
        return jnp.where(is_high, low, middle), jnp.where(is_high, middle, high)

    low = jnp.full((), 2.0**-_OCTAVES, scale.dtype)
    # 8 bisections determine the octave, and each further one a bit of the mantissa.
    factor = jax.lax.fori_loop(0, bounds.nmant + 10, bisect, (low, 1 / low))[1]
    factor = jnp.where(is_stationary(1 / low), scale * factor, jnp.inf)
    factor = jnp.where(is_stationary(low), 0.0, factor)
    return jnp.where(jnp.isfinite(largest), factor, largest)


def _penalised_pulls(penalty: Penalty, pulls: list[jax.Array]) -> list[jax.Array]:
    """The pulls, with 0 at entries that no step of the prox moves."""
    # The points are large, for penalties that are flat around 0; positive, for those
    # that are infinite below it; and uneven, for those of differences. A step of 2^60
    # moves them at any strength above 1e-14.
    key = jax.random.key(jax.lax.optimization_barrier(jnp.zeros((), jnp.int32)))
    points = [
        1000 * jax.random.uniform(key, pull.shape, pull.dtype, 1.0, 2.0)
        for pull in pulls
    ]
    proxes = penalty.prox(points, 2.0**60)
    triples = zip(pulls, points, proxes, strict=True)
    return [jnp.where(prox == point, 0, pull) for pull, point, prox in triples]


def _largest(leaves: list[jax.Array]) -> jax.Array:
    sizes = [jnp.max(jnp.abs(leaf), initial=0.0) for leaf in leaves]
    return functools.reduce(jnp.maximum, sizes)


def _count(masks: list[jax.Array]) -> jax.Array:
    """The number of true entries, as int32, or as float32 if that could overflow."""
    if sum(mask.size for mask in masks) <= MOST:
        return _total(jnp.sum(mask, dtype=jnp.int32) for mask in masks)
    # A float32 sum of ones stops at 2^24: lines are counted as integers first.
    lines = (jnp.sum(jnp.atleast_1d(x), axis=-1, dtype=jnp.int32) for x in masks)
    counts = (jnp.sum(line.astype(jnp.float32)) for line in lines)
    return sum(counts, start=jnp.zeros((), jnp.float32))


def _share(masks: list[jax.Array]) -> jax.Array:
    """The share of entries that are true."""
    return _count(masks) / float(max(sum(mask.size for mask in masks), 1))


def _rms(leaves: list[jax.Array]) -> jax.Array:
    """The root mean square of all entries together."""
    total = sum((jnp.sum(leaf * leaf) for leaf in leaves), start=jnp.zeros(()))
    return jnp.sqrt(total / max(sum(leaf.size for leaf in leaves), 1))


def _total(counts: Iterable[jax.Array]) -> jax.Array:
    return sum(counts, start=jnp.zeros((), jnp.int32))


def _penalised(penalty: Penalty, tree: Tree) -> list[jax.Array]:
    leaves = Leaves(penalty, tree)
    return [jnp.asarray(leaves.leaves[index]) for index in leaves.penalised]
