"""Which penalty acts on which leaf, by the leaf's path.

Paths are slash-joined (`Dense_0/kernel`) and alike for Linen, NNX, Equinox and plain
trees: the `.value` that Flax puts behind a variable is dropped, so that a rule sees one
path in `init`, where NNX passes variables, and in `update`, where it passes arrays.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxreg._core.checks import check_leaf, check_numbers
from jaxreg._core.penalty import (
    GRADS_MEND,
    Number,
    Penalty,
    Tree,
    flatten_like,
    steps_like,
)
from jaxreg._core.pytree import pytree_dataclass, static
from jaxreg.rules.patterns import Kernels, Pattern, catches, check_pattern


class Part(NamedTuple):
    """The leaves of a tree that one penalty acts on, by their place in its flatten."""

    penalty: Penalty
    places: tuple[int, ...]
    pattern: Pattern | None

    def of(self, leaves: Sequence[Any] | Mapping[int, Any]) -> list[Any]:
        return [leaves[place] for place in self.places]


@pytree_dataclass
class ByPath(Penalty):
    """What `by_path` returns: a penalty that is one of several, leaf by leaf."""

    penalties: tuple[Penalty, ...]
    patterns: tuple[Pattern, ...] = static()

    @property
    def is_convex(self) -> bool:
        return all(penalty.is_convex for penalty in self.penalties)

    @property
    def varying_step(self) -> bool:
        return all(penalty.varying_step for penalty in self.penalties)

    @property
    def is_separable(self) -> bool:
        return all(penalty.is_separable for penalty in self.penalties)

    @property
    def has_prox(self) -> bool:
        return all(penalty.has_prox for penalty in self.penalties)

    @property
    def prox_tolerance(self) -> float:
        return max(penalty.prox_tolerance for penalty in self.penalties)

    @property
    def scope(self) -> Any:
        scopes = {penalty.scope for penalty in self.penalties}
        return "tree" if "tree" in scopes else "leaf"

    @property
    def stationarity_kind(self) -> Any:
        """The kind of all rules, or "residual", the weakest, where they differ."""
        kinds = {penalty.stationarity_kind for penalty in self.penalties}
        return kinds.pop() if len(kinds) == 1 else "residual"

    def value(self, params: Tree) -> jax.Array:
        leaves = jax.tree.leaves(params)
        found = check(self, params)
        values = (part.penalty.value(part.of(leaves)) for part in found)
        return sum(values, start=jnp.zeros((), jnp.float32))

    def subgradient(self, params: Tree) -> Tree:
        return self._on_parts(
            params,
            lambda place, leaf: jnp.zeros_like(leaf),
            lambda part, leaves: part.penalty.subgradient(leaves),
        )

    def prox(self, params: Tree, step: Number | Tree) -> Tree:
        steps = steps_like(params, step)
        return self._on_parts(
            params,
            lambda place, leaf: jnp.asarray(leaf),
            lambda part, leaves: part.penalty.prox(leaves, part.of(steps)),
        )

    def stationarity(self, params: Tree, grads: Tree) -> Tree:
        pulls = flatten_like(jax.tree.structure(params), grads, "grads", GRADS_MEND)
        return self._on_parts(
            params,
            lambda place, leaf: jnp.abs(pulls[place]),
            lambda part, leaves: part.penalty.stationarity(leaves, part.of(pulls)),
        )

    def step_for(self, width: Number, params: Tree | None = None) -> Any:
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
            lambda place, leaf: jnp.zeros(()),
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
        leaves, names = jax.tree.leaves(tree), paths(tree)
        found = list(_parts(self, names))
        _check_rules(found, names)
        lifted = [lift(part.penalty, part.of(leaves)) for part in found]
        return ByPath(tuple(lifted), self.patterns)

    def _on_parts(
        self,
        params: Tree,
        free: Callable[[int, Any], Any],
        matched: Callable[[Part, list[Any]], Iterable[Any]],
    ) -> Tree:
        found = check(self, params)
        leaves, treedef = jax.tree.flatten(params)
        out = [free(place, leaf) for place, leaf in enumerate(leaves)]
        for part in found:
            results = matched(part, part.of(leaves))
            for place, result in zip(part.places, results, strict=True):
                out[place] = result
        return jax.tree.unflatten(treedef, out)


def by_path(rules: Iterable[tuple[Pattern, Penalty] | ByPath]) -> ByPath:
    """One penalty per leaf, chosen by the leaf's path; the first match wins.

    Each penalty gets all the leaves of its rule at once, so a penalty over a whole tree
    stays over the whole of its leaves. Leaves that no rule matches are free.

    Args:
      rules: pairs (pattern, penalty). A pattern is a regular expression that is
        searched, with `re.search`, in the slash-joined path (`Dense_0/kernel`). The
        rules of another `by_path`, or of `neurons` and the like, may stand among them:
        they take its place in the list.

    Raises:
      ValueError: there is no rule, a pattern is no regular expression, a pair holds
        rules, or a number is negative. At the first update, and wherever parameters
        are at hand, a rule that catches no leaf. Never in `init`, which Optax also
        calls with placeholders.
      TypeError: what a rule names is no penalty.

    >>> import jax.numpy as jnp, jaxreg
    >>> params = {"embed": jnp.ones((2, 2)), "out": {"kernel": jnp.ones((2, 2))}}
    >>> penalty = jaxreg.by_path([(r"kernel$", jaxreg.L1(0.5))])
    >>> float(penalty.value(params))
    2.0
    """
    rules = (rules,) if isinstance(rules, ByPath) else tuple(rules)
    pairs = [pair for rule in rules for pair in _pairs_of(rule)]
    if not pairs or any(
        not isinstance(pair, tuple | list) or len(pair) != 2 for pair in pairs
    ):
        raise ValueError(
            f"by_path({list(rules)!r}): allowed is a list of at least one pair "
            "(pattern, penalty)"
        )
    for pattern, penalty in pairs:
        if isinstance(penalty, ByPath):
            raise ValueError(
                f"by_path: the rule {pattern!r} names another by_path. Rules do not "
                "nest; put the other into the list without a pattern, and its rules "
                "stand in its place"
            )
        check_numbers(penalty)
        if not isinstance(pattern, Kernels):
            check_pattern("by_path", pattern)
    patterns, penalties = zip(*pairs, strict=True)
    return ByPath(penalties, patterns)


def _pairs_of(rule: Any) -> list[Any]:
    """The rules that an item of `by_path`'s list stands for."""
    if isinstance(rule, ByPath):
        return list(zip(rule.patterns, rule.penalties, strict=True))
    return [rule]


def paths(params: Tree) -> list[str]:
    """The slash-joined path of every leaf, in the order of `jax.tree.leaves`."""
    keys = [path for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    below = collections.Counter(path[:end] for path in keys for end in range(len(path)))
    return [_path_text(path, below[path[:-1]] == 1) for path in keys]


def parts(penalty: Penalty, params: Tree) -> Iterator[Part]:
    """The penalties at work in `penalty` and the leaves each gets; refuses nothing."""
    return _parts(penalty, paths(params))


def members(penalty: Penalty) -> tuple[Penalty, ...]:
    """The penalties at work in `penalty`."""
    return penalty.penalties if isinstance(penalty, ByPath) else (penalty,)


def _parts(penalty: Penalty, names: list[str]) -> Iterator[Part]:
    if not isinstance(penalty, ByPath):
        yield Part(penalty, tuple(range(len(names))), None)
        return
    winners = [_first_match(penalty.patterns, name) for name in names]
    for rule, (pattern, one) in enumerate(
        zip(penalty.patterns, penalty.penalties, strict=True)
    ):
        places = tuple(place for place, winner in enumerate(winners) if winner == rule)
        yield Part(one, places, pattern)


def check(penalty: Penalty, params: Tree) -> list[Part]:
    """`parts`, once what cannot be right about them has been refused.

    Raises:
      TypeError: no penalty, or a penalised leaf that is not real floating point.
      ValueError: a number out of range, a rule that catches no leaf, or a leaf whose
        shape the penalty cannot take. The message names the leaf and the mend.
    """
    check_numbers(penalty)
    names, leaves = paths(params), jax.tree.leaves(params)
    found = list(_parts(penalty, names))
    _check_rules(found, names)
    for part in found:
        for place in part.places:
            _check_layout(part, names[place], leaves[place])
            check_leaf(part.penalty, names[place], leaves[place])
    return found


def _check_rules(found: list[Part], names: list[str]) -> None:
    for part in found:
        if part.pattern is not None and not part.places:
            raise ValueError(_no_match(part, names))


def _check_layout(part: Part, name: str, leaf: Any) -> None:
    if not isinstance(part.pattern, Kernels):
        return
    misfit = part.pattern.refusal(jnp.shape(leaf))
    if misfit is not None:
        raise ValueError(
            f"{part.pattern} on leaf {name!r} of shape {jnp.shape(leaf)}: the leaf "
            f"{misfit}"
        )


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
            f"{part.pattern.layers!r})"
        )
    return (
        f"by_path: the rule {part.pattern!r} ({part.penalty!r}) {why}. Leaves at hand: "
        f"{listed}. Correct or remove the pattern; leaves that Optax masks "
        "(optax.masked, optax.partition) or nnx.Optimizer filters are invisible here"
    )


def _first_match(patterns: Sequence[Pattern], name: str) -> int | None:
    hits = (rule for rule, pattern in enumerate(patterns) if catches(pattern, name))
    return next(hits, None)


def _path_text(path: tuple[Any, ...], is_alone: bool) -> str:
    # By type and place, not by text: multi-head attention has a submodule `value`, and
    # only in a Flax variable is the attribute `value` all there is.
    is_variable = is_alone and path[-1:] == (jax.tree_util.GetAttrKey("value"),)
    trimmed = path[:-1] if is_variable else path
    return jax.tree_util.keystr(trimmed, simple=True, separator="/")
