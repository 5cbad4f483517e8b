"""Penalties on coupled units: one norm per unit, over all leaves that hold it.

A unit of a model, such as a neuron, has slices in several leaves: a column of the
kernel, an entry of the bias, a channel of the normalization behind it. What may be
removed from the model is the unit as a whole. So the penalty takes the norm of all its
slices together, and its prox zeroes all of them or none.

A leaf takes part in one norm alone, which keeps the prox exact: in that of the units
which it makes, or, if it makes none, of those which it reads. The size `n_g` of a group
is that of the model which was traced. A smaller model made from it keeps these numbers,
so that zeros that are gone leave the value, the prox and the gradients as they were.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxreg._core import groups
from jaxreg._core.checks import check_elementwise
from jaxreg._core.layout import Layout, Shape
from jaxreg._core.leafwise import (
    Elementwise,
    Leafwise,
    nan_if_infinite,
    nan_unless,
    traced_once,
    without_negative_zero,
)
from jaxreg._core.messages import shown
from jaxreg._core.penalty import (
    Facts,
    Leaf,
    Number,
    Penalty,
    Tree,
    grads_like,
    steps_like,
    widened,
)
from jaxreg._core.pytree import pytree_dataclass, static
from jaxreg._core.ranges import is_known
from jaxreg._core.shards import COUPLED, check_whole_leaf
from jaxreg.calculus.grouped import (
    NearestFactors,
    excess_factor,
    nearest_factors,
    nearest_in_groups,
    prox_factor,
    slope_factor,
)
from jaxreg.calculus.weighted import WeightedLeaf
from jaxreg.compaction._cut import whole
from jaxreg.compaction._dimensions import Dimension, Member
from jaxreg.compaction._under import paths_under
from jaxreg.compaction.couplings import Couplings, check_couplings
from jaxreg.rules.by_path import ByPath, by_path
from jaxreg.rules.patterns import check_pattern

_ANEW = "for parameters of other shapes make the couplings anew and call jaxreg.coupled"


@dataclasses.dataclass(frozen=True)
class Slices:
    """The slices of units in a leaf, along one axis.

    `units` has the unit of each position along the axis; None if position `i` is
    unit `i`.
    """

    path: str
    axis: int
    length: int
    units: tuple[int, ...] | None = None


@dataclasses.dataclass(frozen=True, repr=False)
class Units(Layout):
    """The units of one dimension, with slices in each leaf of a rule.

    `entries` is the number of entries of a unit in the model that was traced, `layers`
    the length of axis 0 of all leaves if each layer has units of its own.
    """

    count: int
    slices: tuple[Slices, ...]
    entries: int
    layers: int | None = None

    spans_leaves = True

    def __repr__(self) -> str:
        return f"{self.layers} x {self.count}" if self.layers else f"{self.count}"

    def refusal(self, shape: Shape) -> str | None:
        if any(self._fits(each, shape) for each in self.slices):
            return None
        wanted = (
            f"{each.length} along axis {each.axis} of {each.path!r}"
            for each in self.slices
        )
        layers = f" and {self.layers} layers" if self.layers else ""
        return f"has no slices of the units; these have {', '.join(wanted)}{layers}"

    def unit_count(self, shape: Shape) -> int:
        del shape
        return self.count * (self.layers or 1)

    def unit_sizes(self, leaves: Sequence[jax.Array]) -> list[jax.Array]:
        self.check(leaves)
        return [_root_mean_squares(self, list(leaves))]

    def mean_squares(self, leaves: Sequence[jax.Array]) -> jax.Array:
        """The squares of `unit_sizes` in one pass: 0 below 1e-19 in float32."""
        self.check(leaves)
        return self.sums([leaf * leaf for leaf in leaves]) / self.entries

    def spread(
        self, units: Sequence[jax.Array], shapes: Sequence[Shape]
    ) -> list[jax.Array]:
        rows = zip(self.slices, shapes, strict=True)
        return [
            jnp.broadcast_to(self._along(each, units[0], len(shape)), shape)
            for each, shape in rows
        ]

    def aligned(self, units: jax.Array, leaves: Sequence[jax.Array]) -> list[jax.Array]:
        """One number per unit, in shapes that broadcast to those of the leaves.

        They are sharded as the leaves are, which a mask on an explicit mesh needs.
        """
        out = []
        for each, leaf in zip(self.slices, leaves, strict=True):
            numbers = self._along(each, units, leaf.ndim)
            sharding = jax.typeof(leaf).sharding
            if any(sharding.spec):
                parts = zip(sharding.spec, numbers.shape, strict=False)
                spec = jax.P(*(part if n > 1 else None for part, n in parts))
                own = jax.NamedSharding(sharding.mesh, spec)
                numbers = jax.sharding.reshard(numbers, own)
            out.append(numbers)
        return out

    def _along(self, each: Slices, units: jax.Array, ndim: int) -> jax.Array:
        """One number per slice of a leaf, along the axes of the leaf."""
        if each.units is not None:
            units = jnp.take(units, jnp.asarray(each.units, "int32"), axis=-1)
        lengths = [1] * ndim
        for axis, length in zip(self._axes(each), units.shape, strict=True):
            lengths[axis] = length
        return units.reshape(lengths)

    def dead_in_leaves(self, leaves: Sequence[jax.Array]) -> list[jax.Array]:
        # Each unit has slices in every leaf.
        (sizes,) = self.unit_sizes(leaves)
        return [jnp.sum(sizes == 0)] * len(leaves)

    def check(self, leaves: Sequence[Leaf]) -> None:
        """Raises if these are not leaves with the units' slices, in their order."""
        shapes = list(map(jnp.shape, leaves))
        if len(shapes) != len(self.slices):
            raise ValueError(
                f"coupled: the units have slices in {len(self.slices)} leaves, "
                f"{', '.join(each.path for each in self.slices)}, and {len(shapes)} "
                "are here. The norm of a unit needs all of them: do not mask some "
                "(optax.masked, optax.partition), and trace what is not trained, such "
                "as statistics, beside the parameters and not among them; under= then "
                "names these"
            )
        for each, shape in zip(self.slices, shapes, strict=True):
            if not self._fits(each, shape):
                raise ValueError(
                    f"coupled: leaf {each.path!r} has shape {shape}, and "
                    f"{each.length} slices of units lie along axis {each.axis} of it"
                    f"{f' in {self.layers} layers' if self.layers else ''}; {_ANEW}"
                )

    def _fits(self, each: Slices, shape: Shape) -> bool:
        has_axis = each.axis < len(shape) and shape[each.axis] == each.length
        return has_axis and self.layers in (None, shape[0])

    def _axes(self, each: Slices) -> tuple[int, ...]:
        """The axes of a leaf that index its slices."""
        return (each.axis,) if self.layers is None else (0, each.axis)

    @property
    def shape(self) -> Shape:
        """The shape of an array with one number per unit."""
        return (self.count,) if self.layers is None else (self.layers, self.count)

    def sums(self, leaves: Sequence[jax.Array]) -> jax.Array:
        """The sum over all entries of each unit."""
        return self._reduced(jnp.sum, jnp.add, leaves)

    def largest(self, leaves: Sequence[jax.Array]) -> jax.Array:
        """The largest magnitude of each unit."""
        top = functools.partial(jnp.max, initial=0.0)
        return self._reduced(top, jnp.maximum, list(map(jnp.abs, leaves)))

    def _reduced(
        self,
        reduce: Callable[..., jax.Array],
        join: Callable[[jax.Array, jax.Array], jax.Array],
        leaves: Sequence[jax.Array],
    ) -> jax.Array:
        parts = []
        for each, leaf in zip(self.slices, leaves, strict=True):
            within = groups.within_axes(self._axes(each), leaf.ndim)
            by_slice = reduce(leaf, axis=within)
            parts.append(reduce(self._by_unit(each, by_slice), axis=-1))
        return functools.reduce(join, parts)

    def _by_unit(self, each: Slices, numbers: jax.Array) -> jax.Array:
        """One number per slice, with the slices of a unit along a new last axis."""
        # Leaves may be sharded along different axes; these are few numbers.
        numbers = whole(numbers)
        if each.units is None:
            return numbers[..., None]
        by_unit = sorted(range(each.length), key=each.units.__getitem__)
        order = jnp.asarray(by_unit, "int32").reshape(self.count, -1)
        return jnp.take(numbers, order, axis=-1)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _root_mean_squares(units: Units, leaves: list[jax.Array]) -> jax.Array:
    """RMS of each unit, accurate at every scale; its gradient at a zero unit is 0.

    As `groups.root_mean_square`, over several leaves.
    """
    largest = units.largest(leaves)
    bounds = jnp.finfo(largest.dtype)
    scale = jnp.where(largest > 0, largest.clip(bounds.tiny, 1 / bounds.tiny), 1.0)
    scales = units.aligned(scale, leaves)
    parts = [leaf / own for leaf, own in zip(leaves, scales, strict=True)]
    return scale * jnp.sqrt(units.mean_squares(parts))


@_root_mean_squares.defjvp
def _root_mean_squares_jvp(
    units: Units,
    primals: tuple[list[jax.Array]],
    tangents: tuple[list[jax.Array]],
) -> tuple[jax.Array, jax.Array]:
    (leaves,), (moves,) = primals, tangents
    rms = _root_mean_squares(units, leaves)
    sizes = jnp.where(rms > 0, rms, 1.0)
    rows = zip(leaves, moves, units.aligned(sizes, leaves), strict=True)
    along = units.sums([leaf / size * move for leaf, move, size in rows])
    return rms, along / units.entries


@pytree_dataclass
class Coupled(Penalty):
    r"""`sum_g n_g phi(r_g)` over the units of a dimension: the rules of `coupled`.

    `n_g` is the size of unit `g` and `r_g` its norm, over all leaves, by sqrt(n_g).
    `phi` is `penalty`, elementwise or with a weight per unit.
    """

    penalty: Leafwise
    units: Units = static()

    @property
    def facts(self) -> Facts:
        magnitude = self.penalty.facts
        return Facts(
            is_convex=magnitude.is_convex,
            is_joint=True,
            zeros="units" if magnitude.zeros else None,
            is_absolute=True,
            is_homogeneous=magnitude.is_homogeneous,
            is_radial=True,
        )

    @property
    def layout(self) -> Units:
        return self.units

    @property
    def _has_own_latents(self) -> bool:
        return True

    def step_for(self, width: Number) -> jax.Array:
        return self.penalty.step_for(width)

    def value(self, params: Tree) -> jax.Array:
        return _value(self, self._wide(params))

    def subgradient(self, params: Tree) -> Tree:
        leaves, treedef = jax.tree.flatten(params)
        slopes = _subgradients(self, self._wide(params))
        pairs = zip(slopes, leaves, strict=True)
        return jax.tree.unflatten(
            treedef, [slope.astype(jnp.result_type(leaf)) for slope, leaf in pairs]
        )

    def prox(self, params: Tree, step: Number | Tree) -> Tree:
        leaves, treedef = jax.tree.flatten(params)
        leaves = list(map(jnp.asarray, leaves))
        self._check(leaves)
        proxes = _proxes(self, leaves, self._step(params, step))
        return jax.tree.unflatten(treedef, proxes)

    def stationarity(self, params: Tree, grads: Tree) -> Tree:
        pulls = list(map(widened, grads_like(params, grads)))
        distances = _distances(self, self._wide(params), pulls)
        return jax.tree.unflatten(jax.tree.structure(params), distances)

    def _nearest(self, latent: Tree, params: Tree, step: Number) -> Tree:
        leaves, treedef = jax.tree.flatten(params)
        self._check(leaves)
        latents = jax.tree.leaves(latent)
        nearest = _nearest(self, latents, leaves, jnp.asarray(step))
        return jax.tree.unflatten(treedef, nearest)

    def weigh_units(self, weights: Number | Tree) -> Coupled:
        """As `weighted`, with one number, or an array of the units' shape."""
        parts = jax.tree.leaves(weights)
        shape = self.units.shape
        if len(parts) != 1 or jnp.shape(parts[0]) not in ((), shape):
            raise ValueError(
                f"weighted({shown(self)}, ...): its units span leaves; allowed: one "
                f"number, or one array of shape {shape} with the weight of each unit"
            )
        return Coupled(WeightedLeaf(self.penalty, parts[0]), self.units)

    def _wide(self, params: Tree) -> list[jax.Array]:
        leaves = list(map(widened, jax.tree.leaves(params)))
        self._check(leaves)
        return leaves

    def _check(self, leaves: Sequence[jax.Array]) -> None:
        self.units.check(leaves)
        for leaf in leaves:
            check_whole_leaf(shown(self), leaf, COUPLED)

    def _step(self, params: Tree, step: Number | Tree) -> jax.Array:
        """The one step of all leaves; NaN if those of a trace differ."""
        steps = steps_like(params, step)
        first, others = steps[0], [each for each in steps if each is not steps[0]]
        if any(each.size > 1 for each in steps) or any(
            is_known(jnp.not_equal, first, other) for other in others
        ):
            raise ValueError(
                f"prox of {shown(self)}: the steps differ within a unit, and no prox "
                "is known for that. Use jaxreg.regularize, whose step is one number "
                "for any optimizer, or pass one step"
            )
        one = first.reshape(())
        for other in others:
            one = nan_unless(one == other.reshape(()), one)
        return one

    def _times(
        self, leaves: Sequence[jax.Array], factors: jax.Array
    ) -> list[jax.Array]:
        """The leaves, each slice multiplied by the factor of its unit."""
        aligned = self.units.aligned(factors, leaves)
        return [leaf * factor for leaf, factor in zip(leaves, aligned, strict=True)]


@traced_once
def _value(penalty: Coupled, leaves: list[jax.Array]) -> jax.Array:
    (sizes,) = penalty.units.unit_sizes(leaves)
    return penalty.units.entries * jnp.sum(penalty.penalty.leaf_values(sizes))


@traced_once
def _subgradients(penalty: Coupled, leaves: list[jax.Array]) -> list[jax.Array]:
    (sizes,) = penalty.units.unit_sizes(leaves)
    return penalty._times(leaves, slope_factor(penalty.penalty, sizes))


@traced_once
def _distances(
    penalty: Coupled, leaves: list[jax.Array], grads: list[jax.Array]
) -> list[jax.Array]:
    (sizes,), (pull,) = map(penalty.units.unit_sizes, (leaves, grads))
    at_zero = penalty._times(grads, excess_factor(penalty.penalty, pull))
    slopes = penalty._times(leaves, slope_factor(penalty.penalty, sizes))
    is_dead = penalty.units.aligned(sizes == 0, leaves)
    rows = zip(grads, slopes, at_zero, is_dead, strict=True)
    return [jnp.abs(jnp.where(dead, rest, g + slope)) for g, slope, rest, dead in rows]


@traced_once
def _proxes(
    penalty: Coupled, leaves: list[jax.Array], step: jax.Array
) -> list[jax.Array]:
    wide = list(map(widened, leaves))
    square = penalty.units.mean_squares(list(map(nan_if_infinite, wide)))
    factors = prox_factor(penalty.penalty, square, step.astype(square.dtype))
    out = []
    for leaf, prox in zip(leaves, penalty._times(wide, factors), strict=True):
        prox = without_negative_zero(prox.astype(leaf.dtype))
        # Comparisons with NaN are false: a NaN would become a zero.
        out.append(jax.lax.select(leaf != leaf, leaf, prox))
    return out


@traced_once
def _nearest(
    penalty: Coupled,
    latents: list[jax.Array],
    leaves: list[jax.Array],
    step: jax.Array,
) -> list[jax.Array]:
    square = penalty.units.mean_squares(leaves)
    # As in the prox of the latent, so that XLA computes it once for both.
    square_of_latent = penalty.units.mean_squares(list(map(nan_if_infinite, latents)))
    step = step.astype(square.dtype)
    of_units = nearest_factors(penalty.penalty, square, square_of_latent, step)
    of_leaves = zip(*(penalty.units.aligned(x, leaves) for x in of_units), strict=True)
    rows = zip(latents, leaves, of_leaves, strict=True)
    return [nearest_in_groups(z, x, NearestFactors(*factors)) for z, x, factors in rows]


def coupled(
    penalty: Elementwise,
    couplings: Couplings,
    *,
    under: str = "",
    only: str | None = None,
) -> ByPath:
    """Lays an elementwise penalty on the units of a model, over all their leaves.

    `sum_g n_g phi(r_g)` with `phi` the given penalty, `n_g` the number of entries of
    unit `g` and `r_g` the norm of all of them, over sqrt(n_g). There is one rule for
    each dimension of the model that can be made smaller. A leaf belongs to the units
    that it makes, or, if it makes none, to those that it reads; of several dimensions,
    to that with most leaves. So a neuron's kernel, bias and scale die together, and
    `compact` removes what is zero. Leaves of which only a part has such units are free.

    Args:
      penalty: an elementwise penalty; its numbers are in units of one weight.
      couplings: of `jaxreg.couplings(apply, params, ...)`, or of a compact model, which
        keeps the sizes `n_g` of the model that it was made from.
      under: the path of the trained parameters in those of the couplings, such as
        "params" for the variables of Flax.
      only: a regular expression, as in `compact`; dimensions without a leaf that it
        finds are free.

    Raises:
      TypeError: `penalty` is not elementwise, or `couplings` are none.
      ValueError: no dimension is left. At use: leaves of other shapes than those of the
        couplings, some of them masked, or steps that vary among the entries of a unit.

    Reference: Wen et al. 2016, Learning structured sparsity in deep neural networks,
    eq. 2 (groups of filters); Chen et al. 2021, Only train once, arXiv 2107.07467,
    section 3.1 (groups that can be removed from a network).

    >>> import jax, jax.numpy as jnp, jaxreg
    >>> def apply(params, x):
    ...     return jax.nn.relu(x @ params["hidden"]) @ params["out"]
    >>> params = {"hidden": jnp.ones((5, 8)), "out": jnp.ones((8, 3))}
    >>> units = jaxreg.couplings(apply, params, jnp.ones((2, 5)))
    >>> penalty = jaxreg.coupled(jaxreg.L1(0.5), units)
    >>> for row in jaxreg.describe(penalty, params).rows:
    ...     print(row["groups"], row["leaf"], row["penalty"])
    8 hidden, out Coupled(penalty=L1(strength=0.5), units=8)
    """
    check_elementwise("coupled", penalty, couplings=couplings)
    check_couplings(couplings)
    paths = paths_under(couplings.paths, under)
    if only is not None:
        check_pattern("coupled: only", only)
    families = _families(couplings.dimensions, paths)
    chosen = [
        (dimension, members)
        for dimension, members in families
        if dimension.has_leaf(only)
    ]
    if not chosen:
        raise ValueError(_nothing_left(couplings.dimensions, families, under, only))
    return by_path(
        (_pattern(members, paths), Coupled(penalty, _units(dimension, members, paths)))
        for dimension, members in chosen
    )


_Family = tuple[Dimension, list[Member]]


def _families(dimensions: Sequence[Dimension], paths: dict[str, str]) -> list[_Family]:
    """The dimensions with units that may go, and the leaves that belong to each."""
    removable = [dimension for dimension in dimensions if dimension.frozen is None]
    owned: list[list[Member]] = [[] for _ in removable]
    for path in paths:
        found = [
            (index, member)
            for index, dimension in enumerate(removable)
            for member in dimension.members
            # Leaves with entries of no unit have no factor for these.
            if member.path == path and -1 not in member.units
        ]
        makers = [pair for pair in found if not pair[1].is_contracted]
        if found:
            index, member = max(
                makers or found,
                key=lambda pair: len({m.path for m in removable[pair[0]].members}),
            )
            owned[index].append(member)
    return [pair for pair in zip(removable, owned, strict=True) if pair[1]]


def _units(
    dimension: Dimension, members: Sequence[Member], paths: dict[str, str]
) -> Units:
    in_order = tuple(range(dimension.size))
    slices = (
        Slices(
            path=paths[member.path],
            axis=member.axis,
            length=len(member.units),
            units=None if member.units == in_order else member.units,
        )
        for member in members
    )
    entries = sum(member.entries for member in members)
    return Units(dimension.size, tuple(slices), entries, dimension.layers)


def _pattern(members: Sequence[Member], paths: dict[str, str]) -> str:
    return f"^({'|'.join(re.escape(paths[member.path]) for member in members)})$"


def _nothing_left(
    dimensions: Sequence[Dimension],
    families: Sequence[_Family],
    under: str,
    only: str | None,
) -> str:
    if families:
        found = (member.path for each, _ in families for member in each.members)
        listed = ", ".join(dict.fromkeys(found))
        return f"coupled: only={only!r} finds none of the leaves {listed}"
    frozen = "; ".join(
        f"{each.size} units of {each.members[0].path!r}: {each.frozen}"
        for each in dimensions
        if each.frozen
    )
    return (
        f"coupled: no dimension of the model has units that may go, with leaves under "
        f"{under!r}. Frozen are: {frozen or 'none'}"
    )
