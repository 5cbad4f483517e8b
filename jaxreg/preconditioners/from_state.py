"""The preconditioner of each optimizer, read from its state.

The preconditioner is the optimizer's output for a constant gradient, per unit gradient:
`d_i = preconditioner_i * gradient_i`. A prox after the optimizer's step solves loss +
penalty only with these step sizes, `step_i = learning_rate * preconditioner_i`.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import PyTreeDef

from jaxreg._core.penalty import Tree, flatten_like, widened

Leaves = list[jax.Array | float]
"""One element per leaf: an array of its shape, or one number for all entries."""
States = dict[type, Any]
"""The states of Optax transformations in a direction's state, each type once."""

# Averages of gradients return a constant gradient unchanged.
_IDENTITY_STATES = (optax.EmaState,)
_WRAPPERS = (
    optax.MaskedState,
    optax.InjectHyperparamsState,
    optax.InjectStatefulHyperparamsState,
)


class Preconditioner(abc.ABC):
    """Reads the preconditioner of an optimizer without learning rate from its state."""

    state_types: ClassVar[tuple[type, ...]] = ()

    @property
    def reads(self) -> tuple[type, ...]:
        """The types of Optax states that the direction must have, each once."""
        return self.state_types

    @abc.abstractmethod
    def values(self, states: States, treedef: PyTreeDef, updates: Leaves) -> Leaves:
        """Returns the preconditioner of each leaf, 0 where all gradients were zero."""


def read_preconditioner(
    preconditioner: Preconditioner,
    direction_state: optax.OptState,
    treedef: PyTreeDef,
    updates: Leaves,
) -> Leaves:
    """Returns the preconditioner of each leaf, read from the direction's state.

    Raises:
      ValueError: the state is that of another direction, or ambiguous.
    """
    if not treedef.num_leaves:
        return []
    types, states = preconditioner.reads, States()
    for state in _transformation_states(direction_state):
        if type(state) in states:
            raise ValueError(
                f"proximal: the direction holds two states {type(state).__name__}, and "
                f"{preconditioner} cannot determine which leaves each belongs to. Use "
                "one direction for all leaves, or jaxreg.regularize, which needs no "
                "preconditioner"
            )
        if type(state) in types:
            states[type(state)] = state
        elif isinstance(state, optax.ScaleByScheduleState):
            raise ValueError(
                "proximal: the direction has a learning rate schedule of its own. Give "
                "the learning rate to proximal and leave it out of the direction, as "
                "in proximal(optax.scale_by_adam(), schedule, penalty, "
                "preconditioner=...)"
            )
        elif not isinstance(state, _IDENTITY_STATES):
            raise ValueError(
                f"proximal: {preconditioner} is not the preconditioner of a direction "
                f"with the state {type(state).__name__}. Pass the one for this "
                "direction, or use jaxreg.regularize, which needs none"
            )
    missing = [kind.__name__ for kind in types if kind not in states]
    if missing:
        raise ValueError(
            f"proximal: {preconditioner} reads {' and '.join(missing)}, and the "
            "direction's state holds none. Pass the preconditioner of this direction"
        )
    return preconditioner.values(states, treedef, updates)


def _transformation_states(state: optax.OptState) -> Iterator[optax.OptState]:
    """Iterates over the states in a chain, behind masks and injected numbers too."""
    if isinstance(state, _WRAPPERS):
        yield from _transformation_states(state.inner_state)
    elif isinstance(state, optax.PartitionState):
        yield from _transformation_states(list(state.inner_states.values()))
    elif type(state) in (tuple, list):
        for link in state:
            yield from _transformation_states(link)
    elif jax.tree.leaves(state):
        yield state


def _by_leaf(
    treedef: PyTreeDef, function: Callable[..., jax.Array], *moments: Tree
) -> Leaves:
    """Applies `function` to the moments of each leaf; 1 for leaves that are masked."""
    name, hint = "the direction's state", "make a new state"
    columns = [flatten_like(treedef, tree, name, hint) for tree in moments]
    return [
        1.0 if isinstance(row[0], optax.MaskedNode) else function(*map(widened, row))
        for row in zip(*columns, strict=True)
    ]


def _zero_before_gradient(moment: jax.Array, values: jax.Array) -> jax.Array:
    """The values, or 0 where all gradients were zero: no step shrinks those entries."""
    return jnp.where(moment > 0, values, 0.0)


@dataclasses.dataclass(frozen=True)
class IdentityPreconditioner(Preconditioner):
    """1 for every entry; made by `preconditioners.identity`."""

    def values(self, states: States, treedef: PyTreeDef, updates: Leaves) -> Leaves:
        return [1.0] * treedef.num_leaves


@dataclasses.dataclass(frozen=True)
class MomentumPreconditioner(Preconditioner):
    """`inner / (1 - decay)`; made by `preconditioners.momentum`."""

    decay: float
    preconditioner: Preconditioner = IdentityPreconditioner()

    @property
    def reads(self) -> tuple[type, ...]:
        return (optax.TraceState, *self.preconditioner.reads)

    def values(self, states: States, treedef: PyTreeDef, updates: Leaves) -> Leaves:
        inner = self.preconditioner.values(states, treedef, updates)
        return [values / (1 - self.decay) for values in inner]


@dataclasses.dataclass(frozen=True)
class AdamPreconditioner(Preconditioner):
    """Made by `preconditioners.adam` and, for its own second moment, `yogi`."""

    b2: float = 0.999
    eps: float = 1e-8
    eps_root: float = 0.0
    state_types = (optax.ScaleByAdamState,)

    def values(self, states: States, treedef: PyTreeDef, updates: Leaves) -> Leaves:
        state = states[optax.ScaleByAdamState]
        return self.from_moments(treedef, state.nu, state.count)

    def from_moments(
        self, treedef: PyTreeDef, moments: Tree, count: jax.Array
    ) -> Leaves:
        """Returns `1 / (sqrt(moment / (1 - b2^count) + eps_root) + eps)`."""
        correction = 1 - self.b2 ** jnp.asarray(count, float)

        def of_moment(moment: jax.Array) -> jax.Array:
            root = jnp.sqrt(moment / correction + self.eps_root)
            return _zero_before_gradient(moment, 1 / (root + self.eps))

        return _by_leaf(treedef, of_moment, moments)


@dataclasses.dataclass(frozen=True)
class AdanPreconditioner(AdamPreconditioner):
    """Adam's formula for Adan's second moment; made by `preconditioners.adan`."""

    state_types = (optax.ScaleByAdanState,)

    def values(self, states: States, treedef: PyTreeDef, updates: Leaves) -> Leaves:
        state = states[optax.ScaleByAdanState]
        return self.from_moments(treedef, state.n, state.t)


@dataclasses.dataclass(frozen=True)
class AmsgradPreconditioner(Preconditioner):
    """`1 / (sqrt(nu_max + eps_root) + eps)`; made by `preconditioners.amsgrad`."""

    eps: float = 1e-8
    eps_root: float = 0.0
    state_types = (optax.ScaleByAmsgradState,)

    def values(self, states: States, treedef: PyTreeDef, updates: Leaves) -> Leaves:
        def of_moment(moment: jax.Array) -> jax.Array:
            root = jnp.sqrt(moment + self.eps_root)
            return _zero_before_gradient(moment, 1 / (root + self.eps))

        return _by_leaf(treedef, of_moment, states[optax.ScaleByAmsgradState].nu_max)


@dataclasses.dataclass(frozen=True)
class AdamaxPreconditioner(Preconditioner):
    """`1 / nu`, nu the largest recent gradient; made by `preconditioners.adamax`."""

    eps: float = 1e-8
    state_types = (optax.ScaleByAdamState,)

    def values(self, states: States, treedef: PyTreeDef, updates: Leaves) -> Leaves:
        def of_largest(largest: jax.Array) -> jax.Array:
            # Optax adds eps to the largest gradient.
            return _zero_before_gradient(largest - self.eps, 1 / largest)

        return _by_leaf(treedef, of_largest, states[optax.ScaleByAdamState].nu)


@dataclasses.dataclass(frozen=True)
class RmspropPreconditioner(Preconditioner):
    """`1 / sqrt(nu + eps)` and its variants; made by `preconditioners.rmsprop`."""

    eps: float = 1e-8
    eps_in_sqrt: bool = True
    centered: bool = False
    decay: float | None = None

    @property
    def reads(self) -> tuple[type, ...]:
        has_count = self.decay is not None
        scale = optax.scale_by_stddev if self.centered else optax.scale_by_rms
        # Optax exports no names for the states with a count.
        state = jax.eval_shape(scale(bias_correction=has_count).init, ())
        return (type(state),)

    def values(self, states: States, treedef: PyTreeDef, updates: Leaves) -> Leaves:
        (state,) = (states[kind] for kind in self.reads)
        correction: float | jax.Array = 1.0
        if self.decay is not None:
            correction = 1 - self.decay ** jnp.asarray(state.count, float)

        def of_moments(moment: jax.Array, mean: float | jax.Array = 0.0) -> jax.Array:
            variance = moment / correction - jnp.abs(mean / correction) ** 2
            inside = 1 / jnp.sqrt(variance + self.eps)
            outside = 1 / (jnp.sqrt(variance) + self.eps)
            return _zero_before_gradient(
                moment, inside if self.eps_in_sqrt else outside
            )

        means = (state.mu,) if self.centered else ()
        return _by_leaf(treedef, of_moments, state.nu, *means)


@dataclasses.dataclass(frozen=True)
class AdagradPreconditioner(Preconditioner):
    """`1 / sqrt(sum of squares + eps)`; made by `preconditioners.adagrad`."""

    eps: float = 1e-7
    state_types = (optax.ScaleByRssState,)

    def values(self, states: States, treedef: PyTreeDef, updates: Leaves) -> Leaves:
        def of_sum(total: jax.Array) -> jax.Array:
            return _zero_before_gradient(total, 1 / jnp.sqrt(total + self.eps))

        return _by_leaf(treedef, of_sum, states[optax.ScaleByRssState].sum_of_squares)


@dataclasses.dataclass(frozen=True)
class LambPreconditioner(Preconditioner):
    """Adam's preconditioner times the trust ratio; made by `preconditioners.lamb`."""

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-6
    eps_root: float = 0.0
    state_types = (optax.ScaleByAdamState,)

    def values(self, states: States, treedef: PyTreeDef, updates: Leaves) -> Leaves:
        state = states[optax.ScaleByAdamState]
        adam = AdamPreconditioner(self.b2, self.eps, self.eps_root)
        by_adam = adam.from_moments(treedef, state.nu, state.count)
        means = treedef.flatten_up_to(state.mu)
        correction = 1 - self.b1 ** jnp.asarray(state.count, float)
        return [
            values
            if isinstance(mean, optax.MaskedNode)
            else values * _trust_ratio(update, values * mean / correction)
            for values, mean, update in zip(by_adam, means, updates, strict=True)
        ]


def _trust_ratio(update: jax.Array | float, adam: jax.Array) -> jax.Array:
    """`||update|| / ||adam||`, by which the trust ratio has scaled Adam's update."""
    adam_norm = jnp.linalg.norm(jnp.ravel(adam))
    ratio = jnp.linalg.norm(jnp.ravel(update)) / jnp.where(adam_norm > 0, adam_norm, 1)
    return jnp.where(adam_norm > 0, ratio, 1.0)
