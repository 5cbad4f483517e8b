"""Finds the problem that a chain of transformations solves, by a run on a known one.

A transformation sees gradients, parameters and its own state. What scales the gradients
in front of it, or changes the updates behind it, it cannot see, so that no message can
name it. Here the whole chain trains a few weights on `loss + penalty`, the loss being

    0.5 sum a (w - b)^2    with a = (1, 10, 1) / step and b = (1, -0.2, 0.3) scale,

where `step = penalty.step_for(scale / 2)`: with L1 the solution is (0.5, -0.15, 0)
scale. Where the chain comes to rest is compared with the solutions of the problems that
wrong chains are known to solve. The `scale` of the weights is the largest, of half
decades, at which the chain arrives: its learning rate and the strength decide on it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxreg._core.checks import check_numbers, check_prox
from jaxreg._core.messages import shown
from jaxreg._core.penalty import Number, Penalty, Tree
from jaxreg.rules.by_path import ByPath, Leaves, read
from jaxreg.transforms._leaves import arrays_of, check_steps, zeroed_units

# By unit of the penalty, in turn: one that shrinks, a steep one, one that dies.
_CURVATURES = 1.0, 10.0, 1.0
_CENTRES = 1.0, -0.2, 0.3
# Starts on both sides of the solution tell arriving from standing still.
_STARTS = 2.0, 0.6
_SCALES = tuple(10 ** (2 - half / 2) for half in range(17))
# In units of the scale. The penalty moves a weight by 0.5: 0.02 is 4 % of its effect.
_AT_REST, _SAME = 0.01, 0.02
# Weights that rest at the learning rate or the dead zone are small, but no zeros.
_ZERO = 1e-3
# Of a proximal gradient method with condition number 10: 0.9^400 is below rounding.
_ITERATIONS = 400
_SHAPES = (3,), (4,), (3, 2), (2, 3), (3, 3), (4, 4), (3, 2, 3), (2, 2, 2, 3)

RIGHT = "loss + penalty"
WITHOUT_ZEROS = "loss + penalty, without its exact zeros"
TWICE = "loss + twice the penalty"
DECOUPLED = "the loss alone: the penalty is decoupled, or lost"
COLLAPSES = "the penalty alone: every weight goes to zero"
ON_SUPPORT = "the loss, on the entries that are not zero"
UNKNOWN = "none that is known"
CLIMBS = "none: it climbs"
DIVERGES = "none: it diverges"
RESTLESS = "none: it does not come to rest"


class Verdict(NamedTuple):
    """The problem that a chain solves, and the weights that show it.

    `is_right` is True for loss + penalty, exact zeros included. `rests_at`, `solution`
    (of loss + penalty) and `loss_alone` are trees of weights in units of `scale`; where
    the chain does not come to rest, `rests_at` is the end of the run nearest to rest.
    """

    problem: str
    is_right: bool
    rests_at: Tree
    solution: Tree
    loss_alone: Tree
    scale: float

    def __repr__(self) -> str:
        rows = {
            "solves": self.problem,
            "rests at": _in_digits(self.rests_at),
            "loss + penalty": _in_digits(self.solution),
            "loss alone": _in_digits(self.loss_alone),
        }
        return "\n".join(f"{name:16}{text}" for name, text in rows.items())


def check(
    transformation: optax.GradientTransformation,
    penalty: Penalty,
    params: Tree | None = None,
    *,
    steps: int = 20_000,
) -> Verdict:
    """Runs a whole optimizer on a small loss and says which problem it solves.

    For any Optax transformation that takes gradients of a loss and returns updates: a
    chain, wrappers, one optimizer. In a second or two it finds what no transformation
    can see for itself: links in the wrong order, gradients that are scaled or clipped
    in front of a penalty, updates that are changed behind it. The problem is one of:

    - loss + penalty, or the same without its exact zeros;
    - the loss alone (decoupled), or on the entries that are not zero;
    - loss + twice the penalty, or another multiple;
    - the penalty alone: all weights go to zero;
    - none: the chain climbs, diverges, does not come to rest, or rests elsewhere.

    It cannot see what does not act here: a clip above the gradients at the solution,
    which are those of the penalty; noise of minibatches; masks of leaves that are not
    in `params`; or that you evaluate an average of the parameters. Decay that moves the
    weights by less than 2 % passes. A right chain that does not come to rest needs more
    steps, or a smaller learning rate.

    Args:
      transformation: the whole optimizer, with the learning rate of the training.
      penalty: the penalty that it is meant to add to the loss.
      params: arrays, or their shapes, in place of a vector of three: for rules, and for
        transformations that were made for one structure. Keep it small; the penalty
        should have three or more units (entries or groups) in it.
      steps: the number of updates of a run; take those of a learning rate schedule.

    Raises:
      TypeError: `transformation` is no Optax transformation, or `penalty` no penalty
        with a prox.
      ValueError: the penalty needs `params`, cannot take them, or does not move the
        solution of a smooth loss (as L0, of which every weight is a local minimum); or
        the transformation raises.

    >>> import optax, jaxreg
    >>> l1 = jaxreg.L1(0.1)
    >>> print(jaxreg.check(jaxreg.regularize(optax.adam(1e-2), l1), l1))
    solves          loss + penalty
    rests at        0.5, -0.15, 0
    loss + penalty  0.5, -0.15, 0
    loss alone      1, -0.2, 0.3
    >>> adamw = optax.chain(optax.adam(1e-2), jaxreg.shrink(l1, 1e-2))
    >>> jaxreg.check(adamw, l1).problem
    'the loss alone: the penalty is decoupled, or lost'
    """
    _check_arguments(transformation, penalty, steps)
    with jax.default_device(_cpu()):
        params = _fitting(penalty) if params is None else _zeros(params)
        read(penalty, params)
        return _first_rest(transformation, penalty, params, steps)


def _first_rest(
    transformation: optax.GradientTransformation,
    penalty: Penalty,
    params: Tree,
    steps: int,
) -> Verdict:
    """The verdict at the largest scale at which two runs rest at one point."""
    run = jax.jit(functools.partial(_trained, transformation, steps))
    ends: list[_End] = []
    for scale in _SCALES:
        loss = _quadratic(penalty, params, scale)
        solution = _solution(penalty, 1.0, loss, loss.centre)
        # A constraint may do nothing at this scale, or leave nearly nothing.
        effect, size = _distance(solution, loss.centre), _size(solution)
        if effect < 0.05 * scale or size < 0.25 * scale:
            continue
        far, near = (_times(side * scale, loss.signs) for side in _STARTS)
        (last, swing), (other, _) = run(loss, far), run(loss, near)
        swing, gap = float(swing) / scale, _distance(last, other) / scale
        verdict = _verdict(penalty, loss, last, scale)
        # Without convexity both may be right and differ.
        is_one = gap <= _AT_REST or (
            verdict.is_right and _verdict(penalty, loss, other, scale).is_right
        )
        if swing <= _AT_REST and is_one:
            return verdict
        # A NaN counts as infinite.
        unrest = max(swing, gap) if swing + gap < math.inf else math.inf
        rise = _objective(penalty, loss, last) - _objective(penalty, loss, far)
        ends.append(_End(unrest, rise, loss, last, scale))
    if not ends:
        raise ValueError(
            f"check({shown(penalty)}): the loss alone rests where loss + penalty does, "
            "so that no run can tell the two problems apart. Allowed are penalties and "
            "constraints that move the solution of a smooth loss, and params= on which "
            "they do; for others check the chain with L1 in their place"
        )
    return _verdict_without_rest(penalty, ends)


def _cpu() -> jax.Device | None:
    """A CPU, on which steps of three weights are fast; None if JAX may use none."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        return None


def _check_arguments(transformation: object, penalty: Penalty, steps: object) -> None:
    check_numbers(penalty, transformation=transformation)
    if not isinstance(transformation, optax.GradientTransformation):
        raise TypeError(
            f"check: transformation is {shown(transformation)}; allowed: an Optax "
            "transformation, as in check(jaxreg.regularize(optax.adam(1e-3), penalty), "
            "penalty); of optax.MultiSteps its gradient_transformation()"
        )
    check_prox("check", penalty)
    check_steps("check: steps", steps, least=1)


class _Quadratic(NamedTuple):
    """`0.5 sum curvature (w - centre)^2`."""

    curvature: Tree
    centre: Tree

    def value(self, params: Tree) -> jax.Array:
        terms = jax.tree.map(
            lambda a, b, x: jnp.sum(a * (x - b) ** 2) / 2, *self, params
        )
        return sum(jax.tree.leaves(terms), start=jnp.zeros(()))

    @property
    def signs(self) -> Tree:
        return jax.tree.map(jnp.sign, self.centre)


class _End(NamedTuple):
    """The end of a run that did not come to rest; `rise` is that of the objective."""

    unrest: float
    rise: float
    loss: _Quadratic
    point: Tree
    scale: float


def _fitting(penalty: Penalty) -> Tree:
    """The smallest vector, matrix, ... with three units that the penalty takes."""
    if not isinstance(penalty, ByPath):
        for shape in _SHAPES:
            if penalty.layout.refusal(shape) is None:
                leaf = jnp.zeros(shape)
                # Three leaves where each is a unit as a whole.
                return leaf if penalty.layout.unit_count(shape) != 1 else [leaf] * 3
    raise ValueError(
        f"check({shown(penalty)}): it does not fit a vector or a small matrix; pass "
        "params=, a small tree with the paths and shapes of your parameters, as "
        '{"dense": {"kernel": jnp.zeros((3, 3))}}'
    )


def _zeros(params: Tree) -> Tree:
    return jax.tree.map(lambda leaf: jnp.zeros(jnp.shape(leaf)), arrays_of(params))


def _quadratic(penalty: Penalty, params: Tree, scale: float) -> _Quadratic:
    leaves = Leaves(penalty, params)
    turns = [jnp.arange(leaf.size).reshape(leaf.shape) for leaf in leaves.leaves]
    for part in leaves.parts:
        own = part.pick(leaves.leaves)
        for index, turn in zip(part.indices, _units(part.penalty, own), strict=True):
            turns[index] = turn
    centres = [scale * jnp.asarray(_CENTRES)[turn % 3] for turn in turns]
    owners = leaves.penalised
    # Free leaves are as steep as those of the first rule.
    penalties = [owners.get(i, leaves.parts[0].penalty) for i in range(len(turns))]
    curvatures = [
        jnp.asarray(_CURVATURES)[turn % 3] / owner.step_for(scale / 2)
        for turn, owner in zip(turns, penalties, strict=True)
    ]
    return _Quadratic(leaves.tree(curvatures), leaves.tree(centres))


def _units(penalty: Penalty, leaves: list[jax.Array]) -> list[jax.Array]:
    """At every entry the number of its unit, counted over all leaves."""
    layout, numbers, count = zeroed_units(penalty), [], 0
    for sizes in layout.unit_sizes(leaves):
        numbers.append(count + jnp.arange(sizes.size).reshape(sizes.shape))
        count += sizes.size
    return layout.spread(numbers, [leaf.shape for leaf in leaves])


def _trained(
    transformation: optax.GradientTransformation,
    steps: int,
    loss: _Quadratic,
    start: Tree,
) -> tuple[Tree, jax.Array]:
    """The last parameters, and how far they swing in the last fifth of the steps."""
    update = optax.with_extra_args_support(transformation).update

    def step(carry: Tree, count: jax.Array) -> tuple[Tree, None]:
        params, low, high, state = carry
        value, grads = jax.value_and_grad(loss.value)(params)
        extra = {"value": value, "grad": grads, "value_fn": loss.value}
        updates, state = update(grads, state, params, **extra)
        params = optax.apply_updates(params, updates)
        is_early = count < steps * 4 // 5

        def widest(fold: Callable[..., jax.Array], ends: Tree) -> Tree:
            return jax.tree.map(
                lambda x, end: jnp.where(is_early, x, fold(x, end)), params, ends
            )

        low, high = widest(jnp.minimum, low), widest(jnp.maximum, high)
        return (params, low, high, state), None

    carry = start, start, start, transformation.init(start)
    (last, low, high, _), _ = jax.lax.scan(step, carry, jnp.arange(steps))
    return last, _largest_difference(high, low)


@jax.jit
def _solution(penalty: Penalty, factor: Number, loss: _Quadratic, start: Tree) -> Tree:
    """A stationary point of loss + factor * penalty, by proximal gradient steps."""
    leaves = Leaves(penalty, start)
    curvatures, centres = (jax.tree.leaves(tree) for tree in loss)
    sizes = [1 / jnp.max(x, initial=0.0) for x in curvatures]
    for part in leaves.parts:
        for index in part.indices:
            sizes[index] = functools.reduce(jnp.minimum, part.pick(sizes))

    def step(_: int, points: list[jax.Array]) -> list[jax.Array]:
        rows = zip(points, sizes, curvatures, centres, strict=True)
        moved = [x - size * a * (x - b) for x, size, a, b in rows]
        for part in leaves.parts:
            own = part.pick(moved)
            if not own:
                continue
            proxes = part.penalty.prox(own, factor * part.pick(sizes)[0])
            for index, prox in zip(part.indices, proxes, strict=True):
                moved[index] = prox
        return moved

    return leaves.tree(jax.lax.fori_loop(0, _ITERATIONS, step, leaves.leaves))


def _verdict(penalty: Penalty, loss: _Quadratic, point: Tree, scale: float) -> Verdict:
    """Names the problem of which the point is the solution."""

    def is_at(other: Tree, within: float = _SAME) -> bool:
        return _distance(point, other) <= within * scale

    solution = _solution(penalty, 1.0, loss, point)
    factor = _factor(penalty, loss, point)
    kept = jax.tree.map(lambda x, b: jnp.where(x == 0, 0, b), point, loss.centre)
    if is_at(solution):
        has_zeros = _zeros_of(solution) == _zeros_of(point)
        problem = RIGHT if has_zeros else WITHOUT_ZEROS
    elif is_at(loss.centre):
        problem = DECOUPLED
    elif is_at(_times(0.0, point), _ZERO):
        problem = COLLAPSES
    elif is_at(kept):
        problem = ON_SUPPORT
    elif factor > 0 and is_at(_solution(penalty, factor, loss, point)):
        is_twice = abs(factor - 2) <= 2 * _SAME
        problem = TWICE if is_twice else f"loss + {factor:.2g} times the penalty"
    else:
        problem = UNKNOWN
    return _report(problem, penalty, loss, point, scale)


def _report(
    problem: str, penalty: Penalty, loss: _Quadratic, point: Tree, scale: float
) -> Verdict:
    solution = _solution(penalty, 1.0, loss, loss.centre)
    rests_at, solution, alone = (
        _times(1 / scale, tree) for tree in (point, solution, loss.centre)
    )
    return Verdict(problem, problem == RIGHT, rests_at, solution, alone, scale)


def _factor(penalty: Penalty, loss: _Quadratic, point: Tree) -> float:
    """The multiple of the penalty whose subgradient balances the loss; 0 if none."""
    pulls, slopes = jax.grad(loss.value)(point), penalty.subgradient(point)
    square = optax.tree.vdot(slopes, slopes)
    return float(-optax.tree.vdot(pulls, slopes) / jnp.where(square > 0, square, 1))


def _verdict_without_rest(penalty: Penalty, ends: list[_End]) -> Verdict:
    """Says what most runs do, with the end of the one that is nearest to rest."""
    finite = [end for end in ends if end.unrest < math.inf]
    problem = RESTLESS
    if 2 * sum(end.rise > 0 for end in finite) > len(finite) or not finite:
        problem = CLIMBS if 2 * len(finite) > len(ends) else DIVERGES
    best = min(ends, key=lambda end: end.unrest)
    return _report(problem, penalty, best.loss, best.point, best.scale)


def _objective(penalty: Penalty, loss: _Quadratic, params: Tree) -> float:
    value = penalty.value(params)
    # Off a constraint's set the loss alone can rise.
    return float(loss.value(params) + jnp.where(jnp.isinf(value), 0, value))


def _times(factor: float, tree: Tree) -> Tree:
    return jax.tree.map(lambda leaf: factor * leaf, tree)


def _zeros_of(tree: Tree) -> list[bool]:
    return [bool(x == 0) for leaf in jax.tree.leaves(tree) for x in jnp.ravel(leaf)]


def _size(tree: Tree) -> float:
    return _distance(tree, _times(0.0, tree))


def _distance(first: Tree, second: Tree) -> float:
    return float(_largest_difference(first, second))


def _largest_difference(first: Tree, second: Tree) -> jax.Array:
    pairs = jax.tree.map(
        lambda x, y: jnp.max(jnp.abs(x - y), initial=0.0), first, second
    )
    return functools.reduce(jnp.maximum, jax.tree.leaves(pairs), jnp.zeros(()))


def _in_digits(tree: Tree) -> str:
    entries = [float(x) for leaf in jax.tree.leaves(tree) for x in jnp.ravel(leaf)]
    # Adding 0 makes -0 a 0.
    return ", ".join(f"{entry + 0:.2g}" for entry in entries)
