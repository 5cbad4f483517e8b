"""Numbers about parameters. All are pure and run inside jit."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxreg import rules
from jaxreg.penalty import Penalty, Tree, widened


def zeros(leaf: Any) -> jax.Array:
    """The number of entries that are exactly zero."""
    return jnp.sum(jnp.asarray(leaf) == 0)


def dead_groups(penalty: Penalty, leaf: Any) -> jax.Array | None:
    """The number of groups that are all zero; None for a penalty without groups."""
    dead = penalty.dead_groups(jnp.asarray(leaf))
    return None if dead is None else jnp.sum(dead)


def norm(leaf: Any) -> jax.Array:
    """The Euclidean norm."""
    return jnp.sqrt(jnp.sum(jnp.abs(widened(leaf)) ** 2))


def zero_share(penalty: Penalty, params: Tree) -> jax.Array:
    """The share of exact zeros among the entries of the penalised leaves."""
    leaves = _penalised(penalty, params)
    entries = sum(leaf.size for leaf in leaves)
    return sum((zeros(leaf) for leaf in leaves), start=jnp.zeros(())) / max(entries, 1)


def stationarity_rms(penalty: Penalty, params: Tree, grads: Tree) -> jax.Array:
    """Root mean square of `penalty.stationarity` over the penalised leaves."""
    distances = _penalised(penalty, penalty.stationarity(params, grads))
    entries = sum(distance.size for distance in distances)
    total = sum((jnp.sum(d * d) for d in distances), start=jnp.zeros(()))
    return jnp.sqrt(total / max(entries, 1))


def _penalised(penalty: Penalty, tree: Tree) -> list[jax.Array]:
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    return [leaf for part in rules.parts(penalty, tree) for leaf in part.of(leaves)]
