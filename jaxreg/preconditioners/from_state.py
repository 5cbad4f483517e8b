"""By how much each optimizer multiplies a steady gradient: the step sizes of its prox.

A prox after an optimizer's step solves loss + penalty only if its step is the gain of
the optimizer, `step_i = learning_rate * update_i / gradient_i` for a gradient that no
longer changes. A preconditioner reads that gain from the optimizer's state.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from jaxreg._core.penalty import flatten_like, widened

Found = dict[type, Any]

# Averages of gradients: their gain is 1.
_UNIT_GAIN = (optax.EmaState,)
_WRAPPERS = (
    optax.MaskedState,
    optax.InjectHyperparamsState,
    optax.InjectStatefulHyperparamsState,
)


class Preconditioner(abc.ABC):
    """The gain of an optimizer without its learning rate, read from its state."""

    state_types: ClassVar[tuple[type, ...]] = ()

    @property
    def reads(self) -> tuple[type, ...]:
        """The types of Optax states that must be there, each once."""
        return self.state_types

    @abc.abstractmethod
    def gains(self, found: Found, treedef: Any, moves: list[Any]) -> list[Any]:
        """Per leaf the gain of its entries, 0 where no gradient has been seen yet."""


def read_gains(
    preconditioner: Preconditioner, direction_state: Any, treedef: Any, moves: list[Any]
) -> list[Any]:
    """The gains of an optimizer in this state; refuses a state of another optimizer."""
    if not treedef.num_leaves:
        return []
    wanted, found = preconditioner.reads, {}
    for state in _states(direction_state):
        if type(state) in found:
            raise ValueError(
                f"proximal: the direction holds two states {type(state).__name__}, and "
                f"{preconditioner} cannot tell whose leaf is whose. Use one direction "
                "for all leaves, or jaxreg.regularize, which needs no preconditioner"
            )
        if type(state) in wanted:
            found[type(state)] = state
        elif isinstance(state, optax.ScaleByScheduleState):
            raise ValueError(
                "proximal: the direction has a learning rate schedule of its own. Give "
                "the learning rate to proximal and leave it out of the direction, as "
                "in proximal(optax.scale_by_adam(), schedule, penalty, "
                "preconditioner=...)"
            )
        elif not isinstance(state, _UNIT_GAIN):
            raise ValueError(
                f"proximal: {preconditioner} does not know the gain of a direction "
                f"with the state {type(state).__name__}. Give the preconditioner of "
                "this direction, or use jaxreg.regularize, which needs none"
            )
    missing = [kind.__name__ for kind in wanted if kind not in found]
    if missing:
        raise ValueError(
            f"proximal: {preconditioner} reads {' and '.join(missing)}, and the "
            "direction's state holds none. Give the preconditioner of this direction"
        )
    return preconditioner.gains(found, treedef, moves)


def _states(state: Any) -> Iterator[Any]:
    """The states in a chain, behind masks and injected hyperparameters."""
    if isinstance(state, _WRAPPERS):
        yield from _states(state.inner_state)
    elif isinstance(state, optax.PartitionState):
        yield from _states(list(state.inner_states.values()))
    elif type(state) in (tuple, list):
        for one in state:
            yield from _states(one)
    elif jax.tree.leaves(state):
        yield state


def _by_leaf(treedef: Any, gain: Any, *moments: Any) -> list[Any]:
    """The gain of each leaf from its moments; 1 where a mask keeps the leaf out."""
    name, mend = "the direction's state", "make a new state"
    columns = [flatten_like(treedef, tree, name, mend) for tree in moments]
    return [
        1.0 if isinstance(row[0], optax.MaskedNode) else gain(*map(widened, row))
        for row in zip(*columns, strict=True)
    ]


def _where_seen(moment: jax.Array, gain: jax.Array) -> jax.Array:
    """The gain, or 0 while an entry has had no gradient: it is not wiped out unseen."""
    return jnp.where(moment > 0, gain, 0.0)


@dataclasses.dataclass(frozen=True)
class IdentityPreconditioner(Preconditioner):
    """What `preconditioners.identity` returns."""

    def gains(self, found: Found, treedef: Any, moves: list[Any]) -> list[Any]:
        return [1.0] * treedef.num_leaves


@dataclasses.dataclass(frozen=True)
class MomentumPreconditioner(Preconditioner):
    """What `preconditioners.momentum` returns."""

    decay: float
    preconditioner: Preconditioner = IdentityPreconditioner()

    @property
    def reads(self) -> tuple[type, ...]:
        return (optax.TraceState, *self.preconditioner.reads)

    def gains(self, found: Found, treedef: Any, moves: list[Any]) -> list[Any]:
        gains = self.preconditioner.gains(found, treedef, moves)
        return [gain / (1 - self.decay) for gain in gains]


@dataclasses.dataclass(frozen=True)
class AdamPreconditioner(Preconditioner):
    """What `preconditioners.adam` and `preconditioners.yogi` return."""

    b2: float = 0.999
    eps: float = 1e-8
    eps_root: float = 0.0
    state_types = (optax.ScaleByAdamState,)

    def gains(self, found: Found, treedef: Any, moves: list[Any]) -> list[Any]:
        state = found[optax.ScaleByAdamState]
        return self.of_moments(treedef, state.nu, state.count)

    def of_moments(self, treedef: Any, moments: Any, count: Any) -> list[Any]:
        """`1 / (sqrt(moment / (1 - b2^count) + eps_root) + eps)`."""
        correction = 1 - self.b2 ** jnp.asarray(count, float)

        def gain(moment: jax.Array) -> jax.Array:
            root = jnp.sqrt(moment / correction + self.eps_root)
            return _where_seen(moment, 1 / (root + self.eps))

        return _by_leaf(treedef, gain, moments)


@dataclasses.dataclass(frozen=True)
class AdanPreconditioner(AdamPreconditioner):
    """What `preconditioners.adan` returns."""

    state_types = (optax.ScaleByAdanState,)

    def gains(self, found: Found, treedef: Any, moves: list[Any]) -> list[Any]:
        state = found[optax.ScaleByAdanState]
        return self.of_moments(treedef, state.n, state.t)


@dataclasses.dataclass(frozen=True)
class AmsgradPreconditioner(Preconditioner):
    """What `preconditioners.amsgrad` returns."""

    eps: float = 1e-8
    eps_root: float = 0.0
    state_types = (optax.ScaleByAmsgradState,)

    def gains(self, found: Found, treedef: Any, moves: list[Any]) -> list[Any]:
        def gain(moment: jax.Array) -> jax.Array:
            root = jnp.sqrt(moment + self.eps_root)
            return _where_seen(moment, 1 / (root + self.eps))

        return _by_leaf(treedef, gain, found[optax.ScaleByAmsgradState].nu_max)


@dataclasses.dataclass(frozen=True)
class AdamaxPreconditioner(Preconditioner):
    """What `preconditioners.adamax` returns."""

    eps: float = 1e-8
    state_types = (optax.ScaleByAdamState,)

    def gains(self, found: Found, treedef: Any, moves: list[Any]) -> list[Any]:
        def gain(largest: jax.Array) -> jax.Array:
            # Without a gradient it is eps.
            return _where_seen(largest - self.eps, 1 / largest)

        return _by_leaf(treedef, gain, found[optax.ScaleByAdamState].nu)


@dataclasses.dataclass(frozen=True)
class RmspropPreconditioner(Preconditioner):
    """What `preconditioners.rmsprop` returns."""

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

    def gains(self, found: Found, treedef: Any, moves: list[Any]) -> list[Any]:
        (state,) = (found[kind] for kind in self.reads)
        correction: Any = 1.0
        if self.decay is not None:
            correction = 1 - self.decay ** jnp.asarray(state.count, float)

        def gain(moment: jax.Array, mean: Any = 0.0) -> jax.Array:
            spread = moment / correction - jnp.abs(mean / correction) ** 2
            rooted = 1 / jnp.sqrt(spread + self.eps)
            plain = 1 / (jnp.sqrt(spread) + self.eps)
            return _where_seen(moment, rooted if self.eps_in_sqrt else plain)

        means = (state.mu,) if self.centered else ()
        return _by_leaf(treedef, gain, state.nu, *means)


@dataclasses.dataclass(frozen=True)
class AdagradPreconditioner(Preconditioner):
    """What `preconditioners.adagrad` returns."""

    eps: float = 1e-7
    state_types = (optax.ScaleByRssState,)

    def gains(self, found: Found, treedef: Any, moves: list[Any]) -> list[Any]:
        def gain(total: jax.Array) -> jax.Array:
            return _where_seen(total, 1 / jnp.sqrt(total + self.eps))

        return _by_leaf(treedef, gain, found[optax.ScaleByRssState].sum_of_squares)


@dataclasses.dataclass(frozen=True)
class LambPreconditioner(Preconditioner):
    """What `preconditioners.lamb` returns."""

    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-6
    eps_root: float = 0.0
    state_types = (optax.ScaleByAdamState,)

    def gains(self, found: Found, treedef: Any, moves: list[Any]) -> list[Any]:
        state = found[optax.ScaleByAdamState]
        adam = AdamPreconditioner(self.b2, self.eps, self.eps_root)
        gains = adam.of_moments(treedef, state.nu, state.count)
        means = treedef.flatten_up_to(state.mu)
        correction = 1 - self.b1 ** jnp.asarray(state.count, float)
        return [
            gain
            if isinstance(mean, optax.MaskedNode)
            else gain * _ratio(move, gain * mean / correction)
            for gain, mean, move in zip(gains, means, moves, strict=True)
        ]


def _ratio(move: Any, adam: Any) -> Any:
    """The trust ratio: how much longer a leaf's update is than Adam's."""
    length = jnp.linalg.norm(jnp.ravel(adam))
    longer = jnp.linalg.norm(jnp.ravel(move)) / jnp.where(length > 0, length, 1.0)
    return jnp.where(length > 0, longer, 1.0)
