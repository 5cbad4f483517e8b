"""Lasso, ridge and logistic fits by FISTA with the penalties of jaxreg, in float64."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sklearn import linear_model

import jaxreg
from experiments.kit import fista


def path(
    design: np.ndarray, answers: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float, float]:
    """jaxreg's lasso between the knots of scikit-learn's path, where signs are fixed.

    The strengths, the solutions, the distance from the path, the KKT violation.
    """
    knots, _, path = linear_model.lars_path(design, answers, method="lasso")
    strengths = (knots[:-1] + knots[1:]) / 2
    wanted = ((path[:, :-1] + path[:, 1:]) / 2).T
    found, wrong = lassos(design, answers, strengths)
    scale = max(1.0, float(np.max(np.abs(wanted))))
    error = float(np.max(np.abs(found - wanted))) / scale
    return strengths, np.asarray(found), error, float(wrong)


@jax.jit
def lassos(design: Any, answers: Any, strengths: Any) -> tuple[jax.Array, jax.Array]:
    return _solved(design, answers, jax.vmap(jaxreg.L1)(strengths))


@jax.jit
def ridges(design: Any, answers: Any, alphas: Any) -> tuple[jax.Array, jax.Array]:
    samples = len(answers)
    penalties = jax.vmap(lambda alpha: jaxreg.L2.from_sklearn(alpha, samples))(alphas)
    return _solved(design, answers, penalties)


def _solved(design: Any, answers: Any, penalties: Any) -> tuple[jax.Array, jax.Array]:
    """The solution under each penalty, and the largest KKT violation."""
    gram = design.T @ design / len(answers)
    target = design.T @ answers / len(answers)
    rate = 1 / jnp.linalg.eigvalsh(gram)[-1]

    def gradient(w: jax.Array) -> jax.Array:
        return gram @ w - target

    def solve(penalty: Any) -> fista.Solution:
        start = jnp.zeros_like(target)
        return fista.solve(
            gradient, penalty, rate, start, tolerance=1e-12, most=100_000
        )

    found = jax.vmap(solve)(penalties)
    return found.params, jnp.max(found.violation)


@functools.partial(jax.jit, static_argnames=("config", "case"))
def logistics(
    config: Any, case: str, x: Any, y: Any, shares: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    curvature = jnp.linalg.eigvalsh(x @ x.T)[-1] / (4 * len(y))

    def gradient(w: jax.Array) -> jax.Array:
        return x.T @ (jax.nn.sigmoid(x @ w) - y) / len(y)

    zero = jnp.zeros(x.shape[1])
    largest = jaxreg.max_strength(jaxreg.L1(1.0), gradient(zero)).overall
    # Squares of weights: shares down to their squares give the same range of fits.
    strengths = shares * largest if case == "L1" else shares**2 * largest
    kind = jaxreg.L1 if case == "L1" else jaxreg.L2

    def solve(strength: jax.Array) -> fista.Solution:
        tolerance = config.tolerance
        return fista.solve(
            gradient,
            kind(strength),
            1 / curvature,
            zero,
            tolerance=tolerance,
            most=config.most,
        )

    found = jax.vmap(solve)(strengths)
    return found.params, found.violation, strengths
