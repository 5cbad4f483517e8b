"""The interface of penalties and the definition of the prox.

A penalty `h` maps parameters to a scalar. Its proximal operator with step `s`,

    prox_s(v) = argmin_x  h(x) + sum_i (x_i - v_i)^2 / (2 s_i),

leaves exact zeros; its subgradient is what a loss would add. Penalties are
frozen dataclasses and pytrees: their numbers are leaves (so a grid of strengths is one
vmapped penalty, and a jitted run compiles once for all strengths), their sizes and axes
are static. `jaxreg._core.leafwise` has the penalties that are sums over leaves.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, Literal, NoReturn

import jax
import jax.numpy as jnp

from jaxreg._core.layout import Entries, Layout, Shape
from jaxreg._core.messages import shown
from jaxreg._core.ranges import (
    STEP,
    check_fields,
    check_number,
    check_positive,
    check_step,
    is_array,
)

Number = float | jax.Array
"""A scalar, such as a strength; or an array where a field or argument says so."""

Leaf = jax.typing.ArrayLike
"""A leaf of a tree: an array of any shape, or a number."""

Path = tuple[Any, ...]
"""The keys on the way to a leaf, as `jax.tree_util` gives them."""

Tree = Any
"""A pytree of arrays, such as parameters or gradients."""

SumRule = Callable[[Any, Any], "Penalty | None"]
"""The sum of a penalty of one class and one of another; None where it has no rule."""

_EXACT_SUMS: dict[tuple[type, type], SumRule] = {}

# The methods that check their arguments, wherever a subclass defines them.
_CHECKED_METHODS = {
    "value",
    "subgradient",
    "prox",
    "step_for",
    "nearest_latent",
    "stationarity",
    "violation",
}

# Units of rounding by which an untouched latent may differ from that computed from its
# parameter: prox, its inverse and `params + update` round once each, and the
# mean square of a group once more.
_SLACK = 4


@dataclasses.dataclass(frozen=True)
class Facts:
    """Properties of a penalty that hold for all parameters.

    Attributes:
      is_convex: it is a convex function.
      is_separable: it is a sum over entries, each of which has its own prox.
      is_joint: it must see all its leaves at once: it is no sum over leaves, or holds
        one number per leaf.
      varying_step: `prox` is exact for steps that differ among the entries it couples.
      has_prox: `prox` exists; without it a penalty acts by its gradient alone.
      prox_tolerance: the relative error of `prox` beyond rounding.
      zeros: what the prox sets to exactly 0 as one: single "entries", or the "units" of
        the layout; None if it makes no zeros.
      is_absolute: it depends on the magnitudes of the entries alone, and rises in each.
      is_homogeneous: it is positively homogeneous, `h(a x) = a h(x)` for `a > 0`.
      is_radial: it is a sum over the units of the layout, of functions of the Euclidean
        norm of the unit that are least at 0.
      stationarity_kind: how `stationarity` measures, see there.

    >>> import jaxreg
    >>> jaxreg.GroupLasso(1.0, group_axis=0).facts.zeros
    'units'
    """

    is_convex: bool = True
    is_separable: bool = False
    is_joint: bool = False
    varying_step: bool = False
    has_prox: bool = True
    prox_tolerance: float = 0.0
    zeros: Literal["entries", "units"] | None = None
    is_absolute: bool = False
    is_homogeneous: bool = False
    is_radial: bool = False
    stationarity_kind: Literal["distance", "residual", "normal cone"] = "distance"

    def but(self, **changes: Any) -> Facts:
        """These facts, with some of them changed."""
        return dataclasses.replace(self, **changes)


class _OfOptimizers:
    """An attribute that optimizers have; on a penalty it raises with what to write.

    It is an AttributeError, so that nothing takes a penalty for an optimizer, and no
    `__getattr__`, which would hide errors in properties.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, penalty: object, owner: type) -> NoReturn:
        raise AttributeError(
            f"{owner.__name__} is a penalty and has no {self.name!r}: optax.chain and "
            "training loops take optimizers. Write jaxreg.regularize(optimizer, "
            "penalty)"
        )


def _with_checks(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of the contract, behind a check of what is concrete."""
    names = list(inspect.signature(method).parameters)[1:]

    @functools.wraps(method)
    def checked(self: Penalty, *arguments: Any, **keywords: Any) -> Any:
        check_fields(self, arrays=False)
        pairs = (*zip(names, arguments, strict=False), *keywords.items())
        for name, content in pairs:
            if name == "step":
                check_step(content)
            elif name == "width":
                check_positive(name, content)
            elif name in ("params", "grads", "latent"):
                self._check_leaves(name, content)
        return method(self, *arguments, **keywords)

    return checked


class Penalty(abc.ABC):
    """Interface of all penalties. Methods are pure and take whole pytrees.

    `None` leaves and `optax.MaskedNode` hold no arrays and pass through. The methods of
    subclasses check their arguments, and the numbers of the penalty, where these are
    concrete.
    """

    init = _OfOptimizers()
    update = _OfOptimizers()

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for name in _CHECKED_METHODS & cls.__dict__.keys():
            setattr(cls, name, _with_checks(cls.__dict__[name]))

    @property
    @abc.abstractmethod
    def facts(self) -> Facts:
        """Its convexity, the units it zeroes, the steps its prox takes, ..."""

    @property
    def layout(self) -> Layout:
        """The split of leaves into units: entries, groups, a matrix or lines."""
        return Entries()

    @abc.abstractmethod
    def value(self, params: Tree) -> jax.Array:
        """The penalty, a scalar: a sum, never a mean. Its gradient is `subgradient`."""

    @abc.abstractmethod
    def subgradient(self, params: Tree) -> Tree:
        """The element of the subdifferential at `params` that is nearest to 0."""

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
        """Per coordinate, the distance of `-grads` to the subdifferential at `params`.

        It is 0 everywhere exactly when `params` is a stationary point of the loss with
        gradient `grads` plus this penalty. The fact `stationarity_kind` says how it is
        measured: "distance" to the subdifferential, a prox "residual" where no closed
        form of the distance exists, or for constraints the distance to the "normal
        cone".
        """

    @_with_checks
    def nearest_latent(self, latent: Tree, params: Tree, step: Number) -> Tree:
        """The point nearest to `latent` whose prox is `params`.

        It is the projection of `latent` on `params + step * subdifferential(params)`,
        up to rounding: a latent whose prox is `params` is returned unchanged. So an
        entry that has not been edited keeps its latent, and an edited one gets a latent
        of its new value; entry by entry for sums over entries, group by group for group
        penalties, leaf by leaf where a penalty couples a leaf. Where no latent has
        `params` for its prox (off a constraint's set, in the gap of a jump), the prox
        of the result is the nearest point that the prox can return. NaN latents start
        from `params`.

        Args:
          latent: the structure of `params`, in at least float32.
          params: the target of the prox. Half precision counts as equal to the prox
            that rounds to it.
          step: >= 0, one number.
        """
        check_number("step", step, STEP)
        leaves, treedef = jax.tree.flatten(params)
        latents_like(params, latent)
        if any(wide_dtype(leaf) != jnp.result_type(leaf) for leaf in leaves):
            nearest, target = self._nearest_in_half_precision(latent, leaves, step)
        else:
            target = jax.tree.unflatten(treedef, map(jnp.asarray, leaves))
            nearest = self._nearest(latent, target, step)

        def repaired(z: jax.Array, x: jax.Array) -> jax.Array:
            return jnp.where(z == z, z, x).astype(x.dtype)

        return jax.tree.map(repaired, nearest, target)

    @property
    def _has_own_latents(self) -> bool:
        """True if the latents of an entry or group do not depend on those beside it."""
        return False

    def _nearest(self, latent: Tree, params: Tree, step: Number) -> Tree:
        """`nearest_latent` of trees in at least float32, up to NaN latents.

        Subclasses override this one, and wrappers call it.
        """
        proxes = self.prox(latent, step)
        slopes = self.subgradient(params)

        return jax.tree.map(
            lambda z, x, y, slope: jnp.where(self._is_prox(y, x), z, x + step * slope),
            *(latent, params, proxes, slopes),
        )

    def _check_leaves(self, name: str, tree: Tree) -> None:
        """Raises if a leaf of the argument `name` is not real floating."""
        if all(misfit_of_dtype(leaf) is None for leaf in jax.tree.leaves(tree)):
            return
        owner = shown(self) if name == "params" else f"{name} for {shown(self)}"
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            misfit = misfit_of_dtype(leaf)
            if misfit is not None:
                raise TypeError(f"{owner} on leaf {_path_name(path)!r} {misfit}")

    def _nearest_in_half_precision(
        self, latent: Tree, leaves: list[Leaf], step: Number
    ) -> tuple[Tree, Tree]:
        """The nearest latent, and the params before the prox was rounded to them."""
        latents, treedef = jax.tree.flatten(latent)
        proxes = jax.tree.leaves(self.prox(latent, step))
        points = list(map(unrounded, leaves, proxes))
        target = jax.tree.unflatten(treedef, points)
        nearest = self._nearest(latent, target, step)
        if self._has_own_latents:
            return nearest, target
        rows = zip(latents, points, proxes, strict=True)
        shifted = [z + (x - prox) for z, x, prox in rows]
        again = self.prox(jax.tree.unflatten(treedef, shifted), step)
        units = [float(jnp.finfo(jnp.result_type(x)).eps) for x in leaves]
        ends = map(jax.tree.leaves, (nearest, again))
        chosen = map(_shifted_or_new, shifted, *ends, points, units)
        return jax.tree.unflatten(treedef, chosen), target

    def _is_prox(self, prox: jax.Array, leaf: jax.Array) -> jax.Array:
        """True if a leaf is this prox up to rounding, relative to the largest entry."""
        largest = jnp.max(jnp.abs(prox), initial=0.0)
        slack = _SLACK * (jnp.finfo(leaf.dtype).eps + self.facts.prox_tolerance)
        return jnp.all(jnp.abs(prox - leaf) <= slack * largest)

    def distribute(
        self, lift: Callable[[Penalty, Tree], Penalty], tree: Tree
    ) -> Penalty:
        """`lift(self, tree)`; `by_path` lifts each penalty with its part of `tree`."""
        return lift(self, tree)

    def weigh_units(self, weights: Tree) -> Penalty | None:
        """The penalty with a weight per unit, if its units span leaves; else None."""
        del weights
        return None

    def __radd__(self, other: object) -> Penalty:
        """The penalty for the 0 that `sum` begins with."""
        return self if type(other) is int and other == 0 else NotImplemented

    def __mul__(self, factor: object) -> NoReturn:
        raise TypeError(
            f"{factor!r} * {self!r}: a penalty has no products; multiply its strength, "
            "as in L1(2 * strength), or write jaxreg.scaled(penalty, factor)"
        )

    __rmul__ = __mul__

    def __add__(self, other: object) -> Penalty:
        """The sum, if its joint prox is exact; raises otherwise."""
        if not isinstance(other, Penalty):
            return NotImplemented
        for penalty in (self, other):
            reason = penalty._no_sums
            if reason is not None:
                raise TypeError(f"{shown(self)} + {shown(other)}: {reason}")
        both = sum_or_none(self, other)
        if both is None:
            raise TypeError(
                f"{shown(self)} + {shown(other)}: no exact prox of this sum is known "
                "here, and composing the two proxes would solve another problem. "
                "Exact are sums of any penalty with L2; of L1 with GroupLasso, L2Ball "
                "and TotalVariation; of a norm with L2Ball; and of NonNegative with "
                "penalties of magnitudes. To put different penalties on different "
                "leaves use jaxreg.by_path; to do without the zeros of one, chain "
                "jaxreg.add_penalty_gradient(it) before jaxreg.regularize with the "
                "other"
            )
        return both

    @property
    def _no_sums(self) -> str | None:
        """The reason why it has no sum with any penalty, or None."""
        return None


def sum_or_none(first: Penalty, second: Penalty) -> Penalty | None:
    """The penalty that equals `first + second`, or None if no rule gives it.

    Rules of two concrete classes go first, those of any penalty last.
    """
    for kinds, rule in sorted(_EXACT_SUMS.items(), key=_generality):
        for pair in ((first, second), (second, first)):
            if all(map(isinstance, pair, kinds)):
                both = rule(*pair)
                if both is not None:
                    return both
    return None


def _generality(entry: tuple[tuple[type, type], SumRule]) -> int:
    return entry[0].count(Penalty)


def exact_sum(first: type, second: type) -> Callable[[SumRule], SumRule]:
    """Registers the penalty that equals `first + second`, in either order.

    The file of the richer class owns the rule of the sum. `Penalty` stands for any.
    """

    def register(rule: SumRule) -> SumRule:
        _EXACT_SUMS[first, second] = rule
        return rule

    return register


def ratio(width: Number, slope: Number) -> jax.Array:
    """`width / slope`, the step at which a slope of `slope` moves an entry by `width`.

    Where the slope is 0 no step moves anything and every step has the same prox;
    `width` is returned, so that nothing downstream meets an infinity.
    """
    # In at least float32: 5e-5 is subnormal in float16 and would count as 0.
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
    hint = "allowed: a scalar, or a tree with the structure of params"
    steps = [jnp.asarray(s) for s in flatten_like(treedef, step, "step", hint)]
    for (path, leaf), leaf_step in zip(paths_and_leaves, steps, strict=True):
        if _broadcast_shape(leaf_step, leaf) != jnp.shape(leaf):
            raise ValueError(
                f"step{jax.tree_util.keystr(path)} has shape {leaf_step.shape}; "
                "allowed: a shape that broadcasts to that of its leaf, "
                f"{jnp.shape(leaf)}"
            )
    return steps


def flatten_like(
    treedef: jax.tree_util.PyTreeDef, tree: Tree, name: str, hint: str
) -> list[Tree]:
    """The subtrees of `tree` at the leaves of `treedef`, or a ValueError."""
    try:
        return treedef.flatten_up_to(tree)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{name} and params differ in structure: {name} "
            f"{_first_difference(treedef, tree)}; {hint}"
        ) from error


def grads_like(params: Tree, grads: Tree) -> list[jax.Array]:
    """The gradients at the leaves of `params`, or a ValueError."""
    hint = "pass the gradient of the loss at params"
    return leaves_like(params, grads, "grads", hint)


def latents_like(params: Tree, latent: Tree) -> list[jax.Array]:
    """The latents of the leaves of `params`, or a ValueError."""
    return leaves_like(params, latent, "latent", "pass the latent of these params")


def leaves_like(params: Tree, tree: Tree, name: str, hint: str) -> list[Any]:
    """The leaves of a tree with the structure and shapes of `params`.

    A shape that broadcasts would give numbers of something else, without a message.
    """
    leaves, treedef = jax.tree.flatten(params)
    companions = flatten_like(treedef, tree, name, hint)
    for index, pair in enumerate(zip(companions, leaves, strict=True)):
        misfit = shape_misfit(*pair)
        if misfit is not None:
            path = jax.tree_util.tree_flatten_with_path(params)[0][index][0]
            raise ValueError(
                f"{name} has {misfit} at leaf {_path_name(path)!r} of shape "
                f"{jnp.shape(leaves[index])}; {hint}"
            )
    return companions


def shape_misfit(companion: Tree, leaf: Leaf) -> str | None:
    """Describes the misfit of a companion with a leaf's shape, or None if it fits."""
    if not jax.tree_util.all_leaves([companion]):
        return "a tree" if jax.tree.leaves(companion) else repr(companion)
    shape = jnp.shape(companion)
    return None if shape == jnp.shape(leaf) else f"shape {shape}"


def _first_difference(treedef: jax.tree_util.PyTreeDef, tree: Tree) -> str:
    """The first path, by the order of leaves, that only one of two structures has."""
    params = jax.tree.unflatten(treedef, range(treedef.num_leaves))
    ours, theirs = _leaf_paths(params), _leaf_paths(tree)
    above = {path[:end] for path in theirs for end in range(len(path) + 1)}
    for path in ours:
        if path not in above:
            return f"has nothing at {'/'.join(path)!r}"
    for path in theirs:
        if not any(path[:end] in ours for end in range(len(path) + 1)):
            return f"has more than params, at {'/'.join(path)!r}"
    return f"is a {type(tree).__name__} with other containers than params"


def _leaf_paths(tree: Tree) -> dict[tuple[str, ...], None]:
    """The paths of the leaves, in their order."""
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]
    return {
        tuple(jax.tree_util.keystr((key,), simple=True) for key in path): None
        for path in paths
    }


def _path_name(path: Path) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def unrounded(leaf: Leaf, prox: jax.Array) -> jax.Array:
    """The prox at entries where it rounds to the leaf, else the leaf."""
    dtype = jnp.result_type(leaf)
    if prox.dtype == dtype:
        return jnp.asarray(leaf)
    return jnp.where(prox.astype(dtype) == leaf, prox, jnp.asarray(leaf, prox.dtype))


def _shifted_or_new(
    shifted: jax.Array, new: jax.Array, prox: jax.Array, leaf: jax.Array, unit: Number
) -> jax.Array:
    """The shifted latent if its prox is the leaf, up to a unit at the largest entry.

    The update of a half precision weight that crosses 0 is inexact by about a unit, and
    one such weight must not restart all entries that the penalty couples.
    """
    slack = unit * jnp.max(jnp.abs(prox), initial=0.0)
    return jnp.where(jnp.all(jnp.abs(prox - leaf) <= slack), shifted, new)


def is_untouched(latent: jax.Array, nearest: jax.Array) -> jax.Array:
    """Mask of latents that equal `nearest` up to rounding."""
    slack = _SLACK * jnp.finfo(latent.dtype).eps
    return jnp.abs(latent - nearest) <= slack * jnp.abs(nearest)


def misfit_of_dtype(leaf: object) -> str | None:
    """The dtype or type of a leaf that no penalty takes, and what to do, or None."""
    if is_array(leaf) and is_real_floating(leaf):
        return None
    kind = f"dtype {jnp.result_type(leaf)}" if is_array(leaf) else f"type {type(leaf)}"
    return (
        f"of {kind}: allowed are real floating leaves of 16 bits or more. Leave this "
        "one free with by_path"
    )


def is_real_floating(leaf: Leaf | jax.ShapeDtypeStruct) -> bool:
    """True for real floating arrays of 16 bits or more, the least JAX computes in."""
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        return _is_computed_in(leaf.dtype)
    return _is_computed_in(jnp.result_type(leaf))


@functools.cache
def _is_computed_in(dtype: jax.typing.DTypeLike) -> bool:
    return jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits >= 16


def wide_dtype(leaf: Leaf | jax.ShapeDtypeStruct) -> jax.typing.DTypeLike:
    """The dtype, at least float32: half precision loses steps below half a unit."""
    dtype = jnp.result_type(leaf)
    # JAX promotes no float of 8 bits; the error at the first update names the leaf.
    is_narrow = jnp.issubdtype(dtype, jnp.floating) and not is_real_floating(leaf)
    return jnp.dtype(jnp.float32) if is_narrow else jnp.promote_types(dtype, "float32")


def widened(leaf: Leaf) -> jax.Array:
    """The leaf in its wide dtype."""
    leaf = jnp.asarray(leaf)
    return leaf.astype(wide_dtype(leaf))


def _broadcast_shape(step: jax.Array, leaf: Leaf) -> Shape | None:
    try:
        return jnp.broadcast_shapes(step.shape, jnp.shape(leaf))
    except ValueError:
        return None
