"""Refits that hold zeros, on the support or in the orthant of the signs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from jaxreg._core.penalty import Penalty
from jaxreg.rules.by_path import Part
from jaxreg.transforms._leaves import stateless, zeroed_units


def hold_support(penalty: Penalty) -> optax.GradientTransformationExtraArgs:
    """Keeps the zeros of a penalty's leaves zero, last in a chain.

    Entries that are zero when an update arrives do not move; where the penalty has
    groups, groups that are wholly zero. It refits a chosen support without bias:

        `optax.chain(optax.adam(1e-3), jaxreg.hold_support(penalty))`

    trains the surviving weights unpenalised; neither momentum nor weight decay revives
    the others. Give it the penalty of the first run: it determines leaves and groups.
    In half precision a weight may round to zero on its way, and is then held as well:
    refit in float32.

    Raises:
      TypeError, ValueError: at the first update missing params, or a rule that catches
        no leaf.

    Reference: Meinshausen 2007, Relaxed lasso (the relaxation that refits fully).

    >>> import jax.numpy as jnp, optax, jaxreg
    >>> tx = optax.chain(optax.sgd(0.25), jaxreg.hold_support(jaxreg.L1(1.0)))
    >>> w = jnp.array([1.0, 0.0])
    >>> tx.update(jnp.ones(2), tx.init(w), w)[0]
    Array([-0.25,  0.  ], dtype=float32)
    """

    def targets(
        part: Part, leaves: list[jax.Array], points: list[jax.Array]
    ) -> list[jax.Array]:
        dead = zeroed_units(part.penalty).is_dead(leaves)
        pairs = zip(dead, points, strict=True)
        return [jnp.where(is_dead, 0.0, point) for is_dead, point in pairs]

    return stateless("hold_support", penalty, targets)


def orthant(penalty: Penalty) -> optax.GradientTransformationExtraArgs:
    """Holds zeros, and stops at zero weights that would change sign; last in a chain.

    The second phase of OBProx: after a proximal phase has found a support, it goes on
    in the orthant of its signs, `x <- x + u where (x + u) x > 0, else 0`, and
    zeros stay zero. Only the leaves of `penalty` are held.

    Raises:
      TypeError, ValueError: at the first update missing params, or a rule that catches
        no leaf.

    Reference: Chen et al. 2020, Orthant based proximal stochastic gradient method for
    l1-regularized optimization, arXiv 2004.03639, algorithm 3.

    >>> import jax.numpy as jnp, optax, jaxreg
    >>> tx = optax.chain(optax.sgd(1.0), jaxreg.orthant(jaxreg.L1(1.0)))
    >>> w = jnp.array([1.5, 0.5, 0.0])
    >>> optax.apply_updates(w, tx.update(jnp.ones(3), tx.init(w), w)[0])
    Array([0.5, 0. , 0. ], dtype=float32)
    """

    def targets(
        part: Part, leaves: list[jax.Array], points: list[jax.Array]
    ) -> list[jax.Array]:
        def in_orthant(leaf: jax.Array, point: jax.Array) -> jax.Array:
            # A NaN or infinity must propagate: a zero would pass for a pruned weight.
            is_over = (jnp.sign(leaf) * point <= 0) & jnp.isfinite(point)
            return jnp.where(is_over | (leaf == 0), 0.0, point)

        return list(map(in_orthant, leaves, points))

    return stateless("orthant", penalty, targets)
