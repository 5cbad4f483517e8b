"""Groups of a large leaf, a block of them at a time.

On a CPU an array that does not exist yet costs more than the arithmetic on it: each of
its pages is a fault. A prox that looks at its groups several times therefore looks at
blocks that stay in the cache, and keeps of them what it makes of each group.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxreg._core.leafwise import without_negative_zero
from jaxreg.calculus.grouped import BLOCK, GroupPenalty
from jaxreg.rules.by_path import Part
from jaxreg.transforms._recipes import Memory, Recipe, on_slice, recipes, taken

Results = dict[int, jax.Array]


class _Large(NamedTuple):
    """A leaf to cut into blocks along an axis, by its place."""

    place: int
    penalty: GroupPenalty
    axis: int


def with_results(
    parts: list[Part], stepped: Callable[..., Any], *inputs: Any
) -> tuple[Any, Results]:
    """What a function returns, with `group_results` of the large leaves by their place.

    It returns the points of leaves and their steps by place, a state, and more. What
    follows entry by entry from the inputs and from that state, which are in memory
    anyway, is computed in each block.
    """
    result = stepped(*inputs)
    large = _large(parts, *result[:2])
    if not large:
        return result, {}
    made = recipes(stepped, *inputs)
    states = (jax.tree.leaves(tree[2]) for tree in (made, result))
    memory: Memory = dict(zip(*states, strict=True))
    results = {}
    for leaf in large:
        pair = [tree[leaf.place] for tree in made[:2]]
        for recipe, tree in zip(pair, result[:2], strict=True):
            taken(recipe, memory, tree[leaf.place])
        results[leaf.place] = _results(leaf, pair, memory)
    return result, results


def _large(
    parts: list[Part], points: dict[int, Any], steps: dict[int, Any]
) -> list[_Large]:
    """The leaves that are better cut.

    Not those of few blocks, those whose groups no axis separates, those with steps that
    the penalty refuses, and none where leaves can be spread over devices, are on no
    CPU, or are not being traced.
    """
    if jax.default_backend() != "cpu" or jax.device_count() > 1:
        return []
    found = []
    for penalty, place in ((part.penalty, i) for part in parts for i in part.indices):
        point, step = points[place], jnp.shape(steps[place])
        is_traced = isinstance(point, jax.core.Tracer)
        if not isinstance(penalty, GroupPenalty) or not is_traced:
            continue
        axis, is_large = _group_axis(penalty, point.shape), point.size >= 2 * BLOCK
        is_whole = not any(jax.typeof(point).sharding.spec)
        is_taken = penalty.facts.varying_step or not penalty.layout.step_varies(
            point.shape, step
        )
        if axis is not None and is_large and is_whole and is_taken:
            found.append(_Large(place, penalty, axis))
    return found


def _group_axis(penalty: GroupPenalty, shape: tuple[int, ...]) -> int | None:
    """The longest axis that indexes whole groups, or None."""
    layout = penalty.layout
    axes = [axis % len(shape) for axis in layout.axes]
    is_plain = layout.view(shape) == shape
    return max(axes, key=lambda axis: shape[axis]) if is_plain and axes else None


def _results(leaf: _Large, pair: list[Recipe], memory: Memory) -> jax.Array:
    """`group_results` of a leaf, block after block."""
    shape, axis = pair[0].shape, leaf.axis
    length = shape[axis]
    slices = max(1, BLOCK * length // math.prod(shape))
    starts = [*range(0, length - slices, slices), length - slices]

    def of_block(start: jax.Array) -> jax.Array:
        def cut(whole: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice_in_dim(whole, start, slices, axis)

        return leaf.penalty.group_results(*on_slice(pair, memory, cut))

    blocks = jax.lax.map(of_block, jnp.asarray(starts))
    head = jax.lax.collapse(jnp.moveaxis(blocks[:-1], 0, axis), axis, axis + 2)
    # The last block ends with the leaf, and may begin inside the one before it.
    seen = head.shape[axis] - starts[-1]
    fresh = jax.lax.slice_in_dim(blocks[-1], seen, None, axis=axis)
    return jnp.concatenate([head, fresh], axis)


def prox_of_results(
    part: Part, points: list[Any], steps: list[Any], results: Results
) -> list[jax.Array]:
    """The prox of the leaves of a rule, from `group_results` where these are known."""
    is_known = [place in results for place in part.indices]
    rest = [i for i, known in enumerate(is_known) if not known]
    proxes = part.penalty.prox([points[i] for i in rest], [steps[i] for i in rest])
    out = dict(zip(rest, proxes, strict=True))
    for i, place in enumerate(part.indices):
        if isinstance(part.penalty, GroupPenalty) and place in results:
            prox = part.penalty.prox_of(points[i], steps[i], results[place])
            out[i] = without_negative_zero(prox)
    return [out[i] for i in range(len(points))]
