"""Compaction: the removal of units that change nothing, verified.

The decision reads parameters alone, never the data of the examples. The smaller model
runs the equations of the trace at the sizes that are left, so that it can be compared
with the original before the user rebuilds a module.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxreg._core.groups import check_count
from jaxreg._core.messages import shown
from jaxreg._core.penalty import Tree
from jaxreg._core.ranges import check_positive
from jaxreg.compaction import _fold, _known, _removal, _verify
from jaxreg.compaction._carry import carried
from jaxreg.compaction._cut import AxisKept, LeafKept, cut_leaves
from jaxreg.compaction._dimensions import Dimension, Member
from jaxreg.compaction._removal import Evidence, Stay
from jaxreg.compaction._smaller import Smaller
from jaxreg.compaction._terms import Atom, atoms_of, mask_along, units_along
from jaxreg.compaction._trace import Apply, Traced, traced
from jaxreg.compaction._under import paths_under, subtree
from jaxreg.compaction.couplings import Couplings, check_couplings, check_model
from jaxreg.reports.table import Row, Table
from jaxreg.rules.by_path import paths
from jaxreg.rules.patterns import check_pattern


@dataclasses.dataclass(frozen=True, eq=False)
class Compaction:
    """A smaller model that returns what the original returns; `print` shows what went.

    `params` are its parameters and `apply` the traced model at its sizes, for inference
    alone. `kept` has, by path of a leaf and for each of its axes, None or the indices
    that stay (per layer of a stack a list of them), as JSON can write them. `couplings`
    are those of the smaller model, with the sizes of groups of the original. `gap` is
    the largest difference of outputs, relative to the largest entry of each.
    """

    params: Tree
    kept: dict[str, LeafKept]
    couplings: Couplings
    apply: Apply
    gap: float
    rows: tuple[Row, ...]
    totals: tuple[Row, ...]
    shapes: dict[str, tuple[int, ...]]
    tolerance: float

    def __repr__(self) -> str:
        gap = f"gap {self.gap:.1e}, on the inputs and on fresh ones"
        return f"{Table(self.rows)}\n\n{Table(self.totals)}\n\n{gap}"

    def cut(self, tree: Tree, under: str = "") -> Tree:
        """Cuts a tree like `params`, such as an average of them, to what stays.

        Args:
          tree: a tree with the structure of `params`, or of the subtree at `under`.
          under: the path of that subtree, such as "params".

        Raises:
          ValueError: a leaf of another path or shape than the original's.
        """
        leaves, treedef = jax.tree.flatten(tree)
        names = [f"{under}/{name}" if under else name for name in paths(tree)]
        for path, leaf in zip(names, leaves, strict=True):
            if jnp.shape(leaf) != self.shapes.get(path):
                raise ValueError(
                    f"cut: leaf {path!r} has shape {jnp.shape(leaf)}; allowed: the "
                    f"paths and shapes of the original parameters, as {self._some()}"
                )
        kept = [self.kept[path] for path in names]
        return jax.tree.unflatten(treedef, cut_leaves(leaves, kept))

    def carry(
        self,
        optimizer: optax.GradientTransformation,
        state: optax.OptState,
        under: str = "",
        new_optimizer: optax.GradientTransformation | None = None,
    ) -> optax.OptState:
        """Cuts the state of an optimizer to what stays, so that training goes on.

        Moments, averages, latents of `regularize` and counts go along. The next update
        is that of the original, but for what it drew from entries that were removed.

        Args:
          optimizer: the one that made `state`.
          state: its state for the original parameters, of `optimizer.init(params)` or
            as `nnx.Optimizer` and `TrainState` hold it.
          under: the path of what the optimizer trains in `params`, such as "params".
          new_optimizer: the one that goes on, if it differs: with a penalty of
            `jaxreg.coupled(penalty, small.couplings)`.

        Raises:
          TypeError, ValueError: the state is not that of the optimizer for the original
            parameters, or it does not say which of its axes are those of parameters
            (adafactor). The message names the leaf.

        Warns if an update mixes the entries of a leaf, as that of lamb, muon or lbfgs.
        """
        names = paths_under(list(self.shapes), under)
        return carried(
            optimizer,
            state,
            subtree(self.params, under),
            {name: self.shapes[path] for path, name in names.items()},
            {name: self.kept[path] for path, name in names.items()},
            new_optimizer,
        )

    def _some(self) -> str:
        return shown(self.shapes)

    def check(self, apply: Apply, *inputs: Tree) -> float:
        """The gap of a rebuilt model, `apply(compaction.params, *inputs)`.

        It is compared with the traced model on the inputs and on fresh ones. This is
        what sees a number that the code derives from a width.

        Raises:
          ValueError: the outputs differ by more than the tolerance, or in shape.
        """
        what = (
            "The code at its new sizes is another function: it may divide by a width. "
            "Leave that dimension out by only="
        )
        gaps = []
        for examples in (inputs, _verify.fresh_inputs(inputs)):
            with jax.default_matmul_precision("highest"):
                reference = self.apply(self.params, *examples)
                output = jax.jit(apply)(self.params, *examples)
            gaps.append(
                _verify.gap_of("check", reference, output, self.tolerance, what)
            )
        return max(gaps)


def compact(
    couplings: Couplings,
    params: Tree,
    *inputs: Tree,
    only: str | None = None,
    multiple_of: int = 1,
    fold: bool = True,
    tolerance: float = 1e-5,
) -> Compaction:
    """Removes the units whose removal changes nothing, and verifies that.

    A unit goes if, in every contraction over it, its term is zero for every input, or a
    constant that a bias behind takes. At least one unit of each dimension stays. The
    result is compared with the original on the inputs and on fresh ones, at the highest
    matmul precision.

    Args:
      couplings: those of the model, by `jaxreg.couplings(apply, params, *inputs)`.
      params: parameters of the same paths and shapes.
      *inputs: examples, as `apply` takes them.
      only: a regular expression; other dimensions than those with a matching leaf stay.
      multiple_of: the number of units that stay is a multiple of it, or all. Odd widths
        are slow on many devices.
      fold: move constants of removed units into biases.
      tolerance: the largest gap; at least 16 units of rounding where the model computes
        in 16 bits.

    Raises:
      ValueError: parameters of another model, `only` that matches no removable
        dimension, NaN in the outputs of the original, or a gap above the tolerance.

    >>> import jax, jax.numpy as jnp, jaxreg
    >>> def apply(params, x):
    ...     return jax.nn.relu(x @ params["hidden"]) @ params["out"]
    >>> out = jnp.ones((8, 3)).at[jnp.array([0, 2, 5])].set(0.0)
    >>> params = {"hidden": jnp.ones((5, 8)), "out": out}
    >>> x = jnp.ones((2, 5))
    >>> small = jaxreg.compact(jaxreg.couplings(apply, params, x), params, x)
    >>> jax.tree.map(jnp.shape, small.params)
    {'hidden': (5, 5), 'out': (5, 3)}
    """
    _check_arguments(couplings, params, only, multiple_of, tolerance)
    check_model(couplings.apply, params, inputs)
    model = traced(couplings.apply, params, inputs)
    atoms = _chosen(couplings, model, only)
    leaves = jax.tree.leaves(params)
    decision = Decision(model, atoms, leaves, fold)
    decision.settle(multiple_of)
    kept = {
        path: [_kept_along(term, decision.stay, model) for term in axes]
        for path, axes in zip(model.paths, model.leaf_axes, strict=True)
    }
    folded = decision.folded_leaves()
    small_leaves = cut_leaves(folded, [kept[path] for path in model.paths])
    small = jax.tree.unflatten(jax.tree.structure(params), small_leaves)
    apply = _small_apply(couplings.apply, params, kept)
    dtypes = [each.dtype for each in model.activations]
    tolerance = _verify.allowed_gap(dtypes, tolerance)
    models = (couplings.apply, params), (apply, small)
    rows = decision.rows()
    gap, flops = _verified(models, inputs, tolerance, rows)
    return Compaction(
        small,
        kept,
        _small_couplings(couplings, apply, kept, small),
        apply,
        gap,
        rows,
        _totals(leaves, small_leaves, flops),
        {path: jnp.shape(leaf) for path, leaf in zip(model.paths, leaves, strict=True)},
        tolerance,
    )


class Decision:
    """The units that stay, and why."""

    def __init__(
        self,
        model: Traced,
        atoms: Sequence[Atom],
        leaves: Sequence[Any],
        fold: bool,
    ) -> None:
        self.model, self.leaves = model, leaves
        self.stay: Stay = _removal.nothing_stays(atoms, model.layers)
        program, activations = model.program, model.activations
        self._biases = _fold.biases(program, len(leaves), activations) if fold else {}
        run = _known.Pass(model, set(self._biases))
        readings = run.run(list(map(jnp.asarray, leaves)))
        self._values = [reading.values for reading in readings]
        sides = jax.device_get([reading.sides for reading in readings])
        self.evidence = [
            Evidence(
                contraction,
                _known.Reading(pair, None),
                contraction.eqn in self._biases and not contraction.is_per_layer,
            )
            for contraction, pair in zip(run.contractions, sides, strict=True)
        ]
        self._added: dict[int, jax.Array] = {}
        self._uneven: set[int] = set()
        self.brought_back: Stay = {}

    def settle(self, multiple_of: int) -> None:
        """Decides; constants are folded once, for exactly what goes."""
        while True:
            _removal.spread(self.stay, self.evidence)
            before = {atom: [list(m) for m in ms] for atom, ms in self.stay.items()}
            if _removal.top_up(self.stay, multiple_of):
                self.brought_back.update(
                    (atom, masks)
                    for atom, masks in before.items()
                    if masks != self.stay[atom] and atom not in self.brought_back
                )
                continue
            if self._contributions():
                return

    def _contributions(self) -> bool:
        """Computes what goes into each bias; False if a contraction must keep its."""
        self._added = {}
        for index, each in enumerate(self.evidence):
            constants = _removal.constants_at(self.stay, each)
            if not each.takes_constants or not any(units for _, _, units in constants):
                continue
            bias = self._biases[each.contraction.eqn]
            values = self._values[index]
            assert values is not None
            added = _fold.contribution(
                each.contraction,
                bias,
                values,
                self.stay,
                jnp.asarray(self.leaves[bias.leaf]),
                self.model.leaf_axes[bias.leaf],
            )
            if added is None:
                self._uneven.add(index)
                self.evidence[index] = dataclasses.replace(each, takes_constants=False)
                return False
            self._added[bias.leaf] = self._added.get(bias.leaf, 0.0) + added
        return True

    def folded_leaves(self) -> list[Any]:
        """The leaves with constants added, rounded once."""
        out = list(self.leaves)
        for index, added in self._added.items():
            out[index] = _fold.raised(out[index], added)
        return out

    def rows(self) -> tuple[Row, ...]:
        reasons = self._reasons()
        out = []
        for atom, masks in self.stay.items():
            dimension = self.model.dimensions[self.model.atoms.index(atom)]
            out.append(
                {
                    "dimension": _name(dimension.members),
                    "before": atom.size,
                    "after": sum(masks[0]),
                    "layers": dimension.layers,
                    "stayed": "; ".join(reasons[atom]) or None,
                }
            )
        return tuple(out)

    def _reasons(self) -> dict[Atom, list[str]]:
        """By atom, why units stay that nothing needs to vary."""
        out: dict[Atom, list[str]] = collections.defaultdict(list)
        for atom, masks in self.brought_back.items():
            if not any(map(any, masks)):
                out[atom].append(f"all {atom.size} dead: remove this block by hand")
        for index, each in enumerate(self.evidence):
            if each.takes_constants:
                continue
            counts: collections.Counter[Atom] = collections.Counter()
            for atom, layer, units in _removal.constants_at(self.stay, each):
                mask = self.stay[atom][layer]
                counts[atom] += sum(mask[unit] for unit in units)
            why = "no bias behind it takes it"
            if index in self._uneven:
                why = "differs by position (padding): penalize biases with coupled"
            for atom, count in counts.items():
                text = f"{count} constant, {each.contraction.eqn.where}: {why}"
                if count and text not in out[atom]:
                    out[atom].append(text)
        return out


def _name(members: Sequence[Member]) -> str:
    first = members[0]
    return f"{first.path}[{first.axis}]"


def _check_arguments(
    couplings: Couplings,
    params: Tree,
    only: object,
    multiple_of: object,
    tolerance: Any,
) -> None:
    check_couplings(couplings)
    check_count("compact: multiple_of", multiple_of, 1)
    check_positive("compact: tolerance", tolerance)
    if only is not None:
        check_pattern("compact: only", only)
    names = paths(params)
    shapes = tuple(jnp.shape(leaf) for leaf in jax.tree.leaves(params))
    for name, shape, path, expected in zip(
        names, shapes, couplings.paths, couplings.shapes, strict=False
    ):
        if (name, shape) != (path, expected):
            raise ValueError(
                f"params has leaf {name!r} of shape {shape}; couplings is that of a "
                f"model with {path!r} of shape {expected}. Call jaxreg.couplings on "
                "these parameters"
            )
    if len(names) != len(couplings.paths):
        raise ValueError(
            f"params has {len(names)} leaves; couplings is that of a model with "
            f"{len(couplings.paths)}. Call jaxreg.couplings on these parameters"
        )


def _chosen(couplings: Couplings, model: Traced, only: str | None) -> list[Atom]:
    """The atoms that may go: removable in couplings and in this trace."""
    candidates = [each for each in couplings.removable if each.has_leaf(only)]
    if only is not None and not candidates:
        names = [_name(each.members) for each in couplings.removable]
        raise ValueError(
            f"compact: only={shown(only)} matches no leaf of a removable dimension; "
            f"their first leaves are {', '.join(names)}"
        )
    allowed = {_places(each) for each in candidates}
    return [
        atom
        for atom, dimension in zip(model.atoms, model.dimensions, strict=True)
        if dimension.frozen is None and _places(dimension) in allowed
    ]


def _places(dimension: Dimension) -> frozenset[tuple[str, int, tuple[int, ...]]]:
    """The positions of the units of a dimension, by which two traces are matched."""
    return frozenset((each.path, each.axis, each.units) for each in dimension.members)


def _kept_along(term: Any, stay: Stay, model: Traced) -> AxisKept:
    """The indices along an axis of a leaf that stay."""
    atoms = [atom for atom in atoms_of(term) if atom in stay]
    layers = max((len(stay[atom]) for atom in atoms), default=1)
    masks = [
        mask_along(term, _removal.masks_of({a: stay[a] for a in atoms}, layer))
        for layer in range(layers)
    ]
    if all(map(all, masks)):
        return None
    out = [[i for i, on in enumerate(mask) if on] for mask in masks]
    return out if layers > 1 else out[0]


def _first_layer(indices: AxisKept, length: int) -> Sequence[int]:
    """The indices along an axis in the first layer, whose terms hold for all."""
    if indices is None:
        return range(length)
    first = indices[0]
    return first if isinstance(first, list) else indices  # type: ignore[return-value]  # ints


def _small_apply(apply: Apply, params: Tree, kept: dict[str, LeafKept]) -> Apply:
    """The traced model at its new sizes, at any sizes of the inputs' own axes."""
    original = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(jnp.shape(leaf), jnp.result_type(leaf)),
        params,
    )

    @jax.custom_jvp
    def evaluate(small: Tree, *inputs: Tree) -> Tree:
        model = traced(apply, original, inputs)
        masks: dict[Atom, list[bool]] = {}
        for path, axes in zip(model.paths, model.leaf_axes, strict=True):
            for term, indices in zip(axes, kept[path], strict=True):
                if indices is not None:
                    _mark(masks, term, _first_layer(indices, term.size))
        _check_sizes(small, model, kept)
        arrays = [*jax.tree.leaves(small), *jax.tree.leaves(inputs)]
        outputs = Smaller(model, masks)(*arrays)
        return jax.tree.unflatten(model.out_tree, outputs)

    def refuse(primals: Any, tangents: Any) -> Any:
        raise TypeError(
            "the apply of a Compaction is for inference: derivatives of custom rules "
            "are lost in its trace. Rebuild the module at its new sizes to train"
        )

    evaluate.defjvp(refuse)
    return jax.jit(evaluate)


def _check_sizes(small: Tree, model: Traced, kept: dict[str, LeafKept]) -> None:
    """Raises if parameters do not have the shapes of the smaller model."""
    leaves = jax.tree.leaves(small)
    for path, axes, leaf in zip(model.paths, model.leaf_axes, leaves, strict=True):
        pairs = zip(kept[path], axes, strict=True)
        shape = tuple(len(_first_layer(indices, term.size)) for indices, term in pairs)
        if jnp.shape(leaf) != shape:
            raise ValueError(
                f"apply: leaf {path!r} has shape {jnp.shape(leaf)}; allowed: {shape}, "
                "as in the params of the Compaction"
            )


def _mark(masks: dict[Atom, list[bool]], term: Any, indices: Sequence[int]) -> None:
    """Marks the units at these positions as those that stay."""
    for atom in dict.fromkeys(atoms_of(term)):
        units = units_along(term, atom)
        mask = masks.setdefault(atom, [False] * atom.size)
        for index in indices:
            if units[index] >= 0:
                mask[units[index]] = True


def _small_couplings(
    couplings: Couplings, apply: Apply, kept: dict[str, LeafKept], small: Tree
) -> Couplings:
    """The couplings of the smaller model; the numbers of entries stay."""
    dimensions = []
    for dimension in couplings.dimensions:
        members = []
        for member in dimension.members:
            positions = _first_layer(kept[member.path][member.axis], len(member.units))
            members.append([member.units[i] for i in positions])
        left = sorted({unit for units in members for unit in units if unit >= 0})
        rank = {unit: index for index, unit in enumerate(left)} | {-1: -1}
        dimensions.append(
            dataclasses.replace(
                dimension,
                size=len(left),
                members=tuple(
                    dataclasses.replace(member, units=tuple(rank[u] for u in units))
                    for member, units in zip(dimension.members, members, strict=True)
                ),
            )
        )
    shapes = tuple(jnp.shape(leaf) for leaf in jax.tree.leaves(small))
    return Couplings(apply, tuple(dimensions), couplings.paths, shapes)


def _verified(
    models: Sequence[tuple[Apply, Tree]],
    inputs: tuple[Tree, ...],
    tolerance: float,
    rows: Sequence[Row],
) -> tuple[float, tuple[float, float]]:
    """The gap of two models with their parameters, and the FLOPs of each."""
    (_, params), (_, small) = models
    with jax.default_matmul_precision("highest"):
        before, after = (
            jax.jit(apply).lower(own, *inputs).compile() for apply, own in models
        )
    removed = [
        f"{row['dimension']} {row['before']} -> {row['after']}"
        for row in rows
        if row["before"] != row["after"]
    ]
    what = f"Removed: {', '.join(removed) or 'nothing'}. This is a fault of jaxreg"
    gaps = []
    for index, examples in enumerate((inputs, _verify.fresh_inputs(inputs))):
        reference = before(params, *examples)
        if index == 0:
            _verify.check_no_nan("compact", reference)
        output = after(small, *examples)
        gaps.append(_verify.gap_of("compact", reference, output, tolerance, what))
    return max(gaps), (_flops(before), _flops(after))


def _flops(compiled: Any) -> float:
    costs = compiled.cost_analysis()
    return float((costs or {}).get("flops", float("nan")))


def _totals(
    before: Sequence[Any], after: Sequence[Any], flops: tuple[float, float]
) -> tuple[Row, ...]:
    def sums(size: Callable[[Any], int]) -> tuple[int, int]:
        return sum(map(size, before)), sum(map(size, after))

    pairs = {
        "parameters": sums(jnp.size),
        "bytes": sums(lambda x: jnp.size(x) * jnp.result_type(x).itemsize),
        "FLOPs": flops,
    }
    return tuple(
        {
            "total": name,
            "before": f"{old:.0f}",
            "after": f"{new:.0f}",
            "ratio": old / new if new else None,
        }
        for name, (old, new) in pairs.items()
    )
