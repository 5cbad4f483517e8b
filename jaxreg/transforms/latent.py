"""The state of `regularize`, and how to read it."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax

from jaxreg.penalty import Tree


class RegularizeState(NamedTuple):
    """The latent (`MaskedNode` for free leaves), the optimizer's state, steps done."""

    latent: Tree
    inner_optimizer: Any
    latent_step: jax.Array


def latent(opt_state: Any) -> tuple[Tree, Any]:
    """The latent of `regularize` and its optimizer's state, from any optimizer state.

    The latent has the structure of the parameters, `optax.MaskedNode` on free leaves.

    Raises:
      ValueError: the state holds no `regularize`, or more than one.

    >>> import jax.numpy as jnp, optax, jaxreg
    >>> tx = optax.chain(jaxreg.regularize(optax.sgd(0.1), jaxreg.L1(1.0), width=0.5))
    >>> jaxreg.latent(tx.init(jnp.array([1.0, 0.0])))[0]
    Array([1.5, 0. ], dtype=float32)
    """
    found = states_of(opt_state, RegularizeState)
    if len(found) != 1:
        raise ValueError(
            f"latent: the optimizer state holds {len(found)} states of regularize; "
            "allowed: exactly one. Pass the part of the state that you mean"
        )
    return found[0].latent, found[0].inner_optimizer


def states_of(state: Any, kinds: Any) -> list[Any]:
    """The nodes of the given types in an optimizer state."""
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, kinds))
    return [node for node in nodes if isinstance(node, kinds)]
