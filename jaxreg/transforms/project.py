"""Projection onto a constraint after every step."""

from __future__ import annotations

import jax
import optax

from jaxreg._core.constraint import Constraint
from jaxreg._core.messages import shown
from jaxreg._core.penalty import Penalty
from jaxreg.rules.by_path import Part
from jaxreg.transforms._leaves import stateless


def project(constraint: Penalty) -> optax.GradientTransformationExtraArgs:
    """Projects the parameters after every step: last in a chain.

    `x <- argmin |y - (x + updates)|^2` over the set. After plain SGD, and for `Box` and
    `NonNegative` after any optimizer, its fixed points solve the constrained problem.
    Those of an adaptive optimizer with another set do not, since it measures distance
    by its own metric: use `regularize` or `proximal` there. The parameters are always
    feasible after every step, up to rounding in their dtype.

    Args:
      constraint: a constraint, or `by_path` of constraints.

    Raises:
      TypeError: at the first update, a penalty that is no constraint.
      ValueError: missing params, or a rule that catches no leaf.

    Reference: Levitin and Polyak 1966, Constrained minimization methods.

    >>> import jax.numpy as jnp, optax, jaxreg
    >>> tx = optax.chain(optax.sgd(1.0), jaxreg.project(jaxreg.NonNegative()))
    >>> w = jnp.array([1.0, 0.5])
    >>> optax.apply_updates(w, tx.update(jnp.ones(2), tx.init(w), w)[0])
    Array([0., 0.], dtype=float32)
    """

    def targets(
        part: Part, _: list[jax.Array], points: list[jax.Array]
    ) -> list[jax.Array]:
        if not isinstance(part.penalty, Constraint):
            raise TypeError(
                f"project({shown(part.penalty)}): allowed are constraints, such as "
                "jaxreg.L2Ball(1.0). To shrink by a penalty after every step use "
                "jaxreg.shrink; to minimise loss + penalty, jaxreg.regularize"
            )
        return part.penalty.prox(points, 1.0)

    return stateless("project", constraint, targets)
