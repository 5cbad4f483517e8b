"""Rules that assign penalties to leaves by their path.

Paths are slash-joined (`Dense_0/kernel`) and the same for Linen, NNX, Equinox and
plain trees: the `.value` that Flax appends to a variable is dropped, so that a rule
sees one path in `init`, where NNX passes variables, and in `update`, where it passes
arrays.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from jaxreg._core.checks import check_leaf, check_numbers
from jaxreg._core.messages import shown
from jaxreg._core.penalty import (
    Facts,
    Leaf,
    Number,
    Penalty,
    Tree,
    flatten_like,
    grads_like,
    latents_like,
    steps_like,
)
from jaxreg._core.pytree import pytree_dataclass, static
from jaxreg.rules.patterns import Kernels, Pattern, catches, check_pattern

T = TypeVar("T")


class Part(NamedTuple):
    """The leaves that one rule gives to its penalty, by their index in the tree."""

    penalty: Penalty
    indices: tuple[int, ...]
    pattern: Pattern | None

    def pick(self, leaves: Sequence[T] | Mapping[int, T]) -> list[T]:
        return [leaves[index] for index in self.indices]


class Leaves:
    """A tree split by the rules of a penalty, once: leaves, structure and parts.

    `parts` has the leaves of each rule; without `by_path` all leaves are one part.
    """

    def __init__(self, penalty: Penalty, tree: Tree) -> None:
        self.leaves, self.treedef = jax.tree.flatten(tree)
        self._tree, self._penalty = tree, penalty
        if isinstance(penalty, ByPath):
            self.parts = _parts_by_path(penalty, self.names)
        else:
            self.parts = [Part(penalty, tuple(range(len(self.leaves))), None)]

    @functools.cached_property
    def names(self) -> list[str]:
        """The slash-joined path of every leaf."""
        return paths(self._tree)

    @property
    def penalised(self) -> dict[int, Penalty]:
        """The penalty of each leaf that has one, by the leaf's index."""
        return {index: part.penalty for part in self.parts for index in part.indices}

    def _name_of(self, index: int) -> str:
        return self.names[index]

    def like(self, tree: Tree, name: str, hint: str) -> list[Tree]:
        """The subtrees of another tree at these leaves; raises on another structure."""
        return flatten_like(self.treedef, tree, name, hint)

    def tree(self, leaves: Iterable[Tree]) -> Tree:
        """Leaves put back into the structure."""
        return jax.tree.unflatten(self.treedef, list(leaves))

    def checked(self) -> Leaves:
        """These leaves, after validation.

        Raises:
          TypeError: a penalised leaf that is not real floating point.
          ValueError: a rule that catches no leaf, or a leaf whose shape the penalty
            cannot take. The message names the leaf and what to do.
        """
        self.check_rules()
        self.check_leaves()
        return self

    def check_rules(self) -> None:
        """Raises if a rule catches no leaf."""
        for part in self.parts:
            _check_rule(part, self.names)

    def check_leaves(self) -> None:
        """Raises if a penalty cannot take one of its leaves."""
        for part in self.parts:
            for index in part.indices:
                leaf = self.leaves[index]
                misfit = _axes_misfit(part.pattern, leaf)
                if misfit is not None:
                    raise ValueError(
                        f"{part.pattern} on leaf {self.names[index]!r} of shape "
                        f"{jnp.shape(leaf)}: the leaf {misfit}"
                    )
                check_leaf(part.penalty, functools.partial(self._name_of, index), leaf)

    def free(self, indices: Collection[int]) -> None:
        """Takes leaves out of the rules."""
        self.parts = [
            part._replace(indices=tuple(i for i in part.indices if i not in indices))
            for part in self.parts
        ]


def read(penalty: Penalty, params: Tree) -> Leaves:
    """The parameters split by the rules of a penalty, after validation of both."""
    check_numbers(penalty, params=params)
    return Leaves(penalty, params).checked()


@pytree_dataclass
class ByPath(Penalty):
    """A penalty that differs from leaf to leaf; the result of `by_path`."""

    penalties: tuple[Penalty, ...]
    patterns: tuple[Pattern, ...] = static()

    @property
    def facts(self) -> Facts:
        """The facts that hold for all rules."""
        facts = [penalty.facts for penalty in self.penalties]
        kinds = {each.stationarity_kind for each in facts}
        zeros = {each.zeros for each in facts}
        return Facts(
            is_convex=all(each.is_convex for each in facts),
            is_separable=all(each.is_separable for each in facts),
            is_joint=any(each.is_joint for each in facts),
            varying_step=all(each.varying_step for each in facts),
            has_prox=all(each.has_prox for each in facts),
            prox_tolerance=max(each.prox_tolerance for each in facts),
            zeros=zeros.pop() if len(zeros) == 1 else None,
            is_absolute=all(each.is_absolute for each in facts),
            # The residual is the weakest.
            stationarity_kind=kinds.pop() if len(kinds) == 1 else "residual",
        )

    @property
    def _no_sums(self) -> str:
        return (
            "rules have no sums. Add the other penalty inside the rules, as in "
            "jaxreg.by_path([(pattern, jaxreg.L1(1e-3) + jaxreg.L2(1e-4))])"
        )

    def value(self, params: Tree) -> jax.Array:
        read_leaves = read(self, params)
        values = (
            p.penalty.value(p.pick(read_leaves.leaves)) for p in read_leaves.parts
        )
        return sum(values, start=jnp.zeros((), jnp.float32))

    def subgradient(self, params: Tree) -> Tree:
        return self._on_parts(
            params,
            lambda index, leaf: jnp.zeros_like(leaf),
            lambda part, leaves: part.penalty.subgradient(leaves),
        )

    def prox(self, params: Tree, step: Number | Tree) -> Tree:
        steps = steps_like(params, step)
        return self._on_parts(
            params,
            lambda index, leaf: jnp.asarray(leaf),
            lambda part, leaves: part.penalty.prox(leaves, part.pick(steps)),
        )

    def stationarity(self, params: Tree, grads: Tree) -> Tree:
        pulls = grads_like(params, grads)
        return self._on_parts(
            params,
            lambda index, leaf: jnp.abs(pulls[index]),
            lambda part, leaves: part.penalty.stationarity(leaves, part.pick(pulls)),
        )

    def nearest_latent(self, latent: Tree, params: Tree, step: Number | Tree) -> Tree:
        """As for every penalty; `step` may be the tree that `step_for` returns."""
        steps = steps_like(latent, step)
        latents = latents_like(params, latent)
        return self._on_parts(
            params,
            lambda index, leaf: jnp.asarray(latents[index]),
            lambda part, leaves: part.penalty.nearest_latent(
                part.pick(latents), leaves, part.pick(steps)[0] if part.indices else 0.0
            ),
        )

    def step_for(self, width: Number, params: Tree | None = None) -> Tree:
        """A tree of steps with the structure of `params`: each rule has its own.

        Free leaves get 0, the step whose prox changes nothing.
        """
        if params is None:
            raise ValueError(
                "step_for of by_path without params: each rule has a step of its own; "
                "pass the parameters, step_for(width, params), for a tree of steps"
            )
        return self._on_parts(
            params,
            lambda index, leaf: jnp.zeros(()),
            lambda part, leaves: [part.penalty.step_for(width)] * len(leaves),
        )

    def distribute(
        self, lift: Callable[[Penalty, Tree], Penalty], tree: Tree
    ) -> ByPath:
        """Each rule's penalty lifted with the leaves of `tree` that the rule catches.

        `tree` has the paths of the parameters; one number or array goes to every rule.
        """
        if jax.tree_util.all_leaves([tree]):
            lifted = [lift(penalty, tree) for penalty in self.penalties]
            return ByPath(tuple(lifted), self.patterns)
        companions = Leaves(self, tree)
        for part in companions.parts:
            _check_rule(part, companions.names)
        lifted = [
            lift(part.penalty, part.pick(companions.leaves))
            for part in companions.parts
        ]
        return ByPath(tuple(lifted), self.patterns)

    def _check_leaves(self, name: str, tree: Tree) -> None:
        # Free leaves may be anything; the penalty of a rule sees those that it takes.
        leaves = Leaves(self, tree)
        for part in leaves.parts:
            own = {leaves.names[index]: leaves.leaves[index] for index in part.indices}
            part.penalty._check_leaves(name, own)

    def _on_parts(
        self,
        params: Tree,
        free: Callable[[int, Leaf], Leaf],
        matched: Callable[[Part, list[Tree]], Iterable[Tree]],
    ) -> Tree:
        read_leaves = read(self, params)
        out = [free(index, leaf) for index, leaf in enumerate(read_leaves.leaves)]
        for part in read_leaves.parts:
            results = matched(part, part.pick(read_leaves.leaves))
            for index, result in zip(part.indices, results, strict=True):
                out[index] = result
        return read_leaves.tree(out)


def by_path(rules: Iterable[tuple[Pattern, Penalty] | ByPath]) -> ByPath:
    """One penalty per leaf, chosen by the leaf's path; the first match wins.

    Each penalty gets all the leaves of its rule at once, so a penalty over a whole tree
    covers all of them together. Leaves that no rule matches are free.

    Args:
      rules: pairs (pattern, penalty). A pattern is a regular expression that is
        searched, with `re.search`, in the slash-joined path (`Dense_0/kernel`). The
        rules of another `by_path`, or of `neurons` and the like, may be items too:
        they are inserted at that position.

    Raises:
      ValueError: there is no rule, a pattern is not a regular expression, a pair holds
        rules, or a number is negative. At the first update, and wherever parameters
        are passed, a rule catches no leaf. Never in `init`, which Optax also
        calls with placeholders.
      TypeError: a rule names something that is not a penalty.

    >>> import jax.numpy as jnp, jaxreg
    >>> params = {"embed": jnp.ones((2, 2)), "out": {"kernel": jnp.ones((2, 2))}}
    >>> penalty = jaxreg.by_path([(r"kernel$", jaxreg.L1(0.5))])
    >>> float(penalty.value(params))
    2.0
    """
    if not isinstance(rules, ByPath | Iterable):
        raise TypeError(
            f"by_path: rules is {shown(rules)}; allowed: a list of pairs (pattern, "
            "penalty)"
        )
    rules = (rules,) if isinstance(rules, ByPath) else tuple(rules)
    pairs = [pair for rule in rules for pair in _pairs_of(rule)]
    if not pairs or any(
        not isinstance(pair, tuple | list) or len(pair) != 2 for pair in pairs
    ):
        raise ValueError(
            f"by_path({shown(list(rules))}): allowed is a list of at least one pair "
            "(pattern, penalty)"
        )
    for pattern, penalty in pairs:
        if isinstance(penalty, ByPath):
            raise ValueError(
                f"by_path: the rule {shown(pattern)} names another by_path. Rules do "
                "not nest; put the other into the list without a pattern, and its "
                "rules stand in its place"
            )
        check_numbers(penalty)
        if not isinstance(pattern, Kernels):
            check_pattern("by_path", pattern)
    patterns, penalties = zip(*pairs, strict=True)
    return ByPath(penalties, patterns)


def _pairs_of(rule: tuple[Pattern, Penalty] | ByPath) -> list[tuple[Pattern, Penalty]]:
    """The pairs of an item of `by_path`'s list."""
    if isinstance(rule, ByPath):
        return list(zip(rule.patterns, rule.penalties, strict=True))
    return [rule]


def paths(params: Tree) -> list[str]:
    """The slash-joined path of every leaf, in the order of `jax.tree.leaves`."""
    nodes = jax.tree_util.tree_flatten_with_path(params, is_leaf=_is_variable)[0]
    return [
        jax.tree_util.keystr((*path, *below[1:]), simple=True, separator="/")
        for path, node in nodes
        for below, _ in jax.tree_util.tree_flatten_with_path(node)[0]
    ]


def penalties_of(penalty: Penalty) -> tuple[Penalty, ...]:
    """The penalties of all rules."""
    return penalty.penalties if isinstance(penalty, ByPath) else (penalty,)


def _parts_by_path(penalty: ByPath, names: list[str]) -> list[Part]:
    winners = [_first_match(penalty.patterns, name) for name in names]
    rules = zip(penalty.patterns, penalty.penalties, strict=True)
    return [
        Part(
            inner,
            tuple(index for index, winner in enumerate(winners) if winner == rule),
            pattern,
        )
        for rule, (pattern, inner) in enumerate(rules)
    ]


def _check_rule(part: Part, names: list[str]) -> None:
    if part.pattern is not None and not part.indices:
        raise ValueError(_no_match(part, names))


def _axes_misfit(pattern: Pattern | None, leaf: Leaf) -> str | None:
    return pattern.refusal(jnp.shape(leaf)) if isinstance(pattern, Kernels) else None


def _no_match(part: Part, names: list[str]) -> str:
    listed = ", ".join(repr(name) for name in names) or "none"
    caught = [name for name in names if catches(part.pattern or "", name)]
    why = (
        f"matches only leaves that earlier rules take: {', '.join(map(repr, caught))}"
        if caught
        else "matches no leaf"
    )
    if isinstance(part.pattern, Kernels):
        why += (
            f" (a leaf {part.pattern.leaf} whose path before that contains "
            f"{part.pattern.layers!r}{part.pattern.advice()})"
        )
    return (
        f"by_path: the rule {shown(part.pattern)} ({shown(part.penalty)}) {why}. "
        f"Leaves: {listed}. Correct or remove the pattern; leaves that Optax masks "
        "(optax.masked, optax.partition) or nnx.Optimizer filters are invisible here"
    )


def _first_match(patterns: Sequence[Pattern], name: str) -> int | None:
    hits = (rule for rule, pattern in enumerate(patterns) if catches(pattern, name))
    return next(hits, None)


def _is_variable(node: object) -> bool:
    """True for a box of Flax around one parameter, such as `nnx.Param`."""
    # By class too: an Equinox module may have `value` as its single attribute.
    if not any(kind.__module__.startswith("flax.") for kind in type(node).__mro__):
        return False
    children = jax.tree_util.tree_flatten_with_path(
        node, is_leaf=lambda x: x is not node
    )
    return [path for path, _ in children[0]] == [(jax.tree_util.GetAttrKey("value"),)]
