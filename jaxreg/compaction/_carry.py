"""Optimizer states of a smaller model, cut from those of the original.

Nothing in a state says which of its arrays goes with which parameter, and to guess by
name or shape would be wrong in silence. So `init` is asked: it is traced on parameters
whose axes all have lengths of their own, and each axis of the state that comes out with
such a length is that axis of that parameter. What this does not explain raises: lengths
that `init` computes from others, and those that depend on thresholds.
"""

from __future__ import annotations

import itertools
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxreg._core.messages import shown
from jaxreg._core.penalty import Tree
from jaxreg.compaction._cut import LeafKept, cut_leaf
from jaxreg.rules.by_path import paths
from jaxreg.transforms.latent import states_of

_ANEW = "Start anew with optimizer.init(small.params)"

# The lengths of two probes, far above what a state has of its own, such as a memory of
# ten steps, and low enough that a kernel of five axes has fewer than 2^63 entries.
_FIRST_LENGTHS = (1_009, 2_003)

# States of optimizers whose update mixes all entries of a leaf.
_MIXING = optax.ScaleByLBFGSState, optax.contrib.MuonState


class _Axis(NamedTuple):
    """An axis of a parameter, by the parameter's path."""

    path: str
    axis: int


_Names = list[_Axis | int]
"""For each axis of an array of the state, that of a parameter, or its length."""


def carried(
    optimizer: optax.GradientTransformation,
    state: optax.OptState,
    params: Tree,
    shapes: dict[str, tuple[int, ...]],
    kept: dict[str, LeafKept],
    new_optimizer: optax.GradientTransformation | None = None,
) -> optax.OptState:
    """The state for the smaller `params`, from that of the original.

    Args:
      optimizer: the one that made `state`.
      state: for parameters of the paths of `params`, of these `shapes`.
      params: those of the smaller model that are trained.
      shapes: the original shapes, by path.
      kept: what stays along each axis, by path.
      new_optimizer: the one that goes on, if it differs, as by its penalty.

    Raises:
      TypeError: `optimizer` is none.
      ValueError: the state is not that of the optimizer, or an axis of it cannot be
        told. The message names the leaf.
    """
    for name, each in (("optimizer", optimizer), ("new_optimizer", new_optimizer)):
        is_missing = each is None and name == "new_optimizer"
        if not is_missing and not isinstance(each, optax.GradientTransformation):
            raise TypeError(
                f"carry: {name} is {shown(each)}; allowed: an Optax optimizer, of "
                "optax.MultiSteps its gradient_transformation()"
            )
    if states_of(state, optax.FactoredState):
        raise ValueError(
            "carry: the state of adafactor holds averages over whole axes, and those "
            f"of fewer units are other numbers. {_ANEW}"
        )
    if states_of(state, _MIXING) or _reads_dead_entries(optimizer, params):
        warnings.warn(
            "carry: an update of this optimizer mixes entries of a leaf (as lamb, muon "
            "and lbfgs do, and norms of groups), and so it depends on removed entries "
            "that were not zero, as those that read dead units. The next update "
            "differs by that from the original's; for a penalty on groups use "
            "jaxreg.coupled(penalty, small.couplings)",
            stacklevel=3,
        )
    leaves, treedef = jax.tree.flatten(state)
    originals = _abstract(params, shapes)
    _check_alike("the state of this optimizer", state, _init(optimizer, originals))
    names = _axis_names(optimizer, originals)
    out = []
    for path, leaf, of_leaf in zip(paths(state), leaves, names, strict=True):
        wanted = [
            shapes[n.path][n.axis] if isinstance(n, _Axis) else n for n in of_leaf
        ]
        if wanted != list(jnp.shape(leaf)):
            raise ValueError(
                f"carry: the state at {path!r} has shape {jnp.shape(leaf)}, which does "
                "not follow from the axes of one parameter: its form depends on sizes. "
                f"{_ANEW}"
            )
        out.append(_cut(path, leaf, of_leaf, kept))
    small = jax.tree.unflatten(treedef, out)
    wanted = _init(new_optimizer or optimizer, _abstract(params))
    _check_alike("the smaller state", small, wanted)
    return small


def _reads_dead_entries(optimizer: optax.GradientTransformation, params: Tree) -> bool:
    """True if the update of an entry depends on parameters without a gradient.

    Tried on a few entries of each leaf; False where the optimizer takes none of those.
    """
    keys = itertools.count()

    def numbers(leaf: jax.Array) -> jax.Array:
        shape = [min(length, 3) for length in jnp.shape(leaf)]
        return jax.random.normal(jax.random.key(next(keys)), shape)

    def first(leaf: jax.Array) -> jax.Array:
        return jnp.arange(leaf.size).reshape(leaf.shape) == 0

    here, grads = jax.tree.map(numbers, params), jax.tree.map(numbers, params)
    grads = jax.tree.map(lambda g: jnp.where(first(g), 0, g), grads)
    there = jax.tree.map(lambda x: jnp.where(first(x), 3 * x, x), here)
    try:
        state = optimizer.init(here)
        pair = [optimizer.update(grads, state, each)[0] for each in (here, there)]
    except (TypeError, ValueError):
        return False

    def differs(one: jax.Array, other: jax.Array) -> bool:
        is_same = (one == other) | (jnp.isnan(one) & jnp.isnan(other))
        return bool(jnp.any(~is_same & ~first(one)))

    return any(jax.tree.leaves(jax.tree.map(differs, *pair)))


def _abstract(params: Tree, shapes: dict[str, tuple[int, ...]] | None = None) -> Tree:
    """The parameters without their values, at their own shapes or at others."""
    leaves, treedef = jax.tree.flatten(params)
    out = [
        jax.ShapeDtypeStruct(
            jnp.shape(leaf) if shapes is None else shapes[path], jnp.result_type(leaf)
        )
        for path, leaf in zip(paths(params), leaves, strict=True)
    ]
    return jax.tree.unflatten(treedef, out)


def _init(optimizer: optax.GradientTransformation, params: Tree) -> optax.OptState:
    try:
        return jax.eval_shape(optimizer.init, params)
    except (TypeError, ValueError) as error:
        shapes = [leaf.shape for leaf in jax.tree.leaves(params)]
        raise ValueError(
            f"carry: optimizer.init raises on parameters of shapes {shown(shapes)}, by "
            f"which the axes of its state are told: {error}. {_ANEW}"
        ) from error


def _check_alike(what: str, state: optax.OptState, wanted: optax.OptState) -> None:
    """Raises if a state has other paths, shapes or dtypes than `init` gives."""
    trees = [
        dict(zip(paths(x), jax.tree.leaves(x), strict=True)) for x in (state, wanted)
    ]
    for path in dict.fromkeys([*trees[0], *trees[1]]):
        pair = [_kind(tree.get(path)) for tree in trees]
        if pair[0] != pair[1]:
            raise ValueError(
                f"carry: {what} has {pair[0]} at {path!r}, and optimizer.init gives "
                f"{pair[1]}. Pass the optimizer that made the state, with under= the "
                f"path of what it trains, and as new_optimizer= the one that goes on. "
                f"{_ANEW}"
            )


def _kind(leaf: Any) -> str:
    if leaf is None:
        return "nothing"
    return f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}"


def _axis_names(optimizer: optax.GradientTransformation, params: Tree) -> list[_Names]:
    """The names of the axes of each leaf of the state, from two probes that agree."""
    probes = [_probed(optimizer, params, first) for first in _FIRST_LENGTHS]
    places = paths(_init(optimizer, params))
    if any(list(probe) != places for probe in probes):
        raise ValueError(
            f"carry: which leaves the state has depends on the sizes of parameters. "
            f"{_ANEW}"
        )
    for path in places:
        if probes[0][path] != probes[1][path]:
            raise ValueError(
                f"carry: the state at {path!r} has an axis whose length init computes "
                f"from several others. {_ANEW}"
            )
    return list(probes[0].values())


def _probed(
    optimizer: optax.GradientTransformation, params: Tree, first: int
) -> dict[str, _Names]:
    """The names of the axes of the state, on parameters with unique lengths."""
    lengths, axes = itertools.count(first), dict[int, _Axis]()
    shapes = {}
    for path, leaf in zip(paths(params), jax.tree.leaves(params), strict=True):
        own = list(itertools.islice(lengths, len(leaf.shape)))
        axes |= {length: _Axis(path, axis) for axis, length in enumerate(own)}
        shapes[path] = tuple(own)
    state = _init(optimizer, _abstract(params, shapes))
    return {
        path: [axes.get(length, length) for length in leaf.shape]
        for path, leaf in zip(paths(state), jax.tree.leaves(state), strict=True)
    }


def _cut(path: str, leaf: Any, names: _Names, kept: dict[str, LeafKept]) -> Any:
    """The entries of a leaf of the state that stay."""
    along = [kept[n.path][n.axis] if isinstance(n, _Axis) else None for n in names]
    if not any(indices and isinstance(indices[0], list) for indices in along):
        return jnp.asarray(cut_leaf(leaf, along))
    # Each layer of a stack keeps units of its own.
    layers = [j for j, n in enumerate(names) if isinstance(n, _Axis) and n.axis == 0]
    if not layers:
        raise ValueError(
            f"carry: the state at {path!r} has no axis of layers, and these keep units "
            f"of their own. {_ANEW}"
        )
    order = [layers[0], *(j for j in range(len(names)) if j != layers[0])]
    moved = cut_leaf(jnp.transpose(leaf, order), [along[j] for j in order])
    back = sorted(range(len(order)), key=order.__getitem__)
    return jnp.transpose(moved, back)
