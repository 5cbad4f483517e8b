"""The state of `regularize`: its start, its validation, and how to read it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxreg._core.penalty import (
    Number,
    Penalty,
    Tree,
    is_real_floating,
    wide_dtype,
    widened,
)
from jaxreg._core.shards import local_axes
from jaxreg.rules.by_path import Leaves
from jaxreg.transforms._leaves import check_gradients
from jaxreg.transforms.add_penalty_gradient import AddPenaltyGradientState
from jaxreg.transforms.dual_average import DualAverageState
from jaxreg.transforms.ftrl import FtrlState
from jaxreg.transforms.proximal import ProximalState
from jaxreg.transforms.shrink import ShrinkState


class RegularizeState(NamedTuple):
    """The latent (`MaskedNode` for free leaves), and the optimizer's state.

    Beside them, the step count, the last factor of the schedule, and the `width`, which
    says whether parameters are the prox of the latent.
    """

    latent: Tree
    inner_optimizer: optax.OptState
    update_count: jax.Array
    strength_factor: jax.Array
    width: jax.Array

    @property
    def hyperparams(self) -> dict[str, Any]:
        """The numbers of an `optax.inject_hyperparams` inside, which may be set."""
        return self.inner_optimizer.hyperparams


# The states of transformations that apply a penalty; others contain one of these.
_STATES = (
    AddPenaltyGradientState,
    DualAverageState,
    FtrlState,
    ProximalState,
    RegularizeState,
    ShrinkState,
)


def latent(opt_state: optax.OptState) -> tuple[Tree, optax.OptState]:
    """The latent of `regularize` and its optimizer's state, from any optimizer state.

    The latent has the structure of the parameters, `optax.MaskedNode` on free leaves.
    For an `nnx.Optimizer` pass `nnx.as_pure(optimizer.opt_state)`, its plain arrays.

    Raises:
      ValueError: the state holds no `regularize`, or more than one.

    >>> import jax.numpy as jnp, optax, jaxreg
    >>> tx = optax.chain(jaxreg.regularize(optax.sgd(0.1), jaxreg.L1(1.0), width=0.5))
    >>> jaxreg.latent(tx.init(jnp.array([1.0, 0.0])))[0]
    Array([1.5, 0. ], dtype=float32)
    """
    states = states_of(opt_state, RegularizeState)
    if len(states) != 1:
        raise ValueError(
            f"latent: the optimizer state holds {len(states)} states of regularize; "
            "allowed: exactly one. Pass the part of the state that you mean"
        )
    return states[0].latent, states[0].inner_optimizer


def start_of(
    penalty: Penalty, leaves: list[jax.Array], width: Number
) -> list[jax.Array]:
    """Latents whose prox is the params, or the nearest point the prox can return."""
    if not leaves:
        return []
    # If the penalty cannot take a leaf, the error at the first update names it.
    is_refused = any(penalty.layout.refusal(jnp.shape(leaf)) for leaf in leaves)
    is_refused |= any(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)
    is_refused |= not all(map(is_real_floating, leaves))
    is_refused = is_refused or (
        not penalty.facts.is_separable and any(map(local_axes, leaves))
    )
    if is_refused:
        return [jnp.zeros_like(leaf, dtype=wide_dtype(leaf)) for leaf in leaves]
    wide = [widened(leaf) for leaf in leaves]
    return penalty.nearest_latent(wide, wide, penalty.step_for(width))


def states_of(state: optax.OptState, kinds: type | tuple[type, ...]) -> list[Any]:
    """The nodes of these types in an optimizer state."""
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, kinds))
    return [node for node in nodes if isinstance(node, kinds)]


def check_inner(state: optax.OptState, extra_args: dict[str, Any]) -> None:
    """Raises if an optimizer with this state cannot work on a latent."""
    searches = (
        optax.ScaleByBacktrackingLinesearchState,
        optax.ScaleByZoomLinesearchState,
    )
    if states_of(state, searches):
        raise ValueError(
            "regularize: the optimizer has a line search, which evaluates the loss at "
            "latents where the parameters never are. Give it a learning rate instead, "
            "as in optax.lbfgs(1e-1, linesearch=None)"
        )
    sams = states_of(state, optax.contrib.SAMState)
    if "grad_fn" in extra_args or any(sam.cache is None for sam in sams):
        raise ValueError(
            "regularize: grad_fn gives gradients at latents, where the parameters "
            "never are. Use optax.contrib.sam with opaque_mode=False"
        )
    if states_of(state, optax.LookaheadState):
        raise ValueError(
            "regularize: lookahead inside keeps two copies of the latent and its slow "
            "copy has no prox. Use the optimizer that lookahead wraps"
        )
    if states_of(state, optax.contrib.DifferentiallyPrivateAggregateState):
        raise ValueError(
            "regularize: the optimizer takes gradients per example, with one axis more "
            "than the parameters. Write optax.chain("
            "optax.contrib.differentially_private_aggregate(...), "
            "jaxreg.regularize(optax.sgd(...), penalty))"
        )
    applied = {type(inner).__name__ for inner in states_of(state, _STATES)}
    if applied:
        raise ValueError(
            f"regularize: the optimizer applies a penalty already "
            f"({', '.join(sorted(applied))} in its state), and would do so to latents. "
            "Give regularize the plain optimizer and one penalty: a sum or "
            "jaxreg.by_path for two penalties. A gradient of a penalty belongs before "
            "it, optax.chain(jaxreg.add_penalty_gradient(...), jaxreg.regularize(...))"
        )


def check_latents(leaves: Leaves, latents: list[Any], grads: list[Any]) -> None:
    """Raises if the state was made for other parameters or rules."""
    penalised = leaves.penalised
    for index, leaf in enumerate(leaves.leaves):
        latent_leaf = latents[index]
        has_latent = not isinstance(latent_leaf, optax.MaskedNode)
        if has_latent != (index in penalised):
            now, then = ("free", "penalised") if has_latent else ("penalised", "free")
            raise ValueError(
                f"regularize: leaf {leaves.names[index]!r} is {now} and was {then} "
                "when the state was made. After a change of rules call tx.init(params)"
            )
        if not has_latent:
            continue
        wanted = leaf.shape, wide_dtype(leaf)
        if (latent_leaf.shape, latent_leaf.dtype) != wanted:
            raise ValueError(
                f"regularize: the state holds a latent of shape {latent_leaf.shape} "
                f"and dtype {latent_leaf.dtype} for leaf {leaves.names[index]!r} of "
                f"shape {leaf.shape} and dtype {leaf.dtype}. For other parameters call "
                "tx.init(params)"
            )
    check_gradients("regularize", leaves, grads)
