"""Ways to decay weights, and the points on a least squares problem they end at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import optax
from scipy import optimize
from sklearn import linear_model

import jaxreg

LOSS, BESIDE, PROX, EXACT = "L2 in the loss", "decay", "prox form", "regularize L2"
WAYS = (LOSS, BESIDE, PROX, EXACT)
MOMENTUM = 0.9

Rate = Callable[[Any], Any]

OPTIMIZERS: dict[str, Callable[[Rate], optax.GradientTransformation]] = {
    "sgd": optax.sgd,
    "sgd, momentum": lambda rate: optax.sgd(rate, momentum=MOMENTUM),
    "adam": optax.adam,
}


def fixed_points(
    design: np.ndarray, answers: np.ndarray, decay: float
) -> dict[str, np.ndarray]:
    """What each way may end at, from scikit-learn and SciPy."""

    def ridge(decay: float) -> np.ndarray:
        alpha = decay * len(answers)
        model = linear_model.Ridge(alpha=alpha, fit_intercept=False, solver="cholesky")
        return model.fit(design, answers).coef_

    ols = np.linalg.lstsq(design, answers)[0]
    bounds = (-1 / decay, 1 / decay)
    box = optimize.lsq_linear(design, answers, bounds, method="bvls", tol=1e-15)
    return {
        "ridge": ridge(decay),
        "ridge of a tenth": ridge((1 - MOMENTUM) * decay),
        "box": box.x,
        "OLS": ols,
        "OLS clipped": np.clip(ols, *bounds),
    }


def aim_of(optimizer: str, way: str) -> str:
    """The fixed point that theory gives."""
    if way in (LOSS, EXACT) or optimizer == "sgd":
        return "ridge"
    return "box" if optimizer == "adam" else "ridge of a tenth"


def with_decay(
    optimizer: str, way: str, decay: Any, rate: Rate, width: float
) -> optax.GradientTransformation:
    """The optimizer with one of the ways; `weight_decay` is twice jaxreg's strength."""
    base, penalty = OPTIMIZERS[optimizer](rate), jaxreg.L2(decay / 2)
    match way:
        case "L2 in the loss":
            return optax.chain(jaxreg.add_penalty_gradient(penalty), base)
        case "prox form":
            return optax.chain(base, jaxreg.shrink(penalty, rate))
        case "regularize L2":
            return jaxreg.regularize(base, penalty, width)
    if optimizer == "adam":
        return optax.adamw(rate, weight_decay=decay)
    momentum = MOMENTUM if "momentum" in optimizer else 0.0
    return optax.chain(
        optax.trace(momentum),
        jaxreg.add_penalty_gradient(penalty),
        optax.scale_by_learning_rate(rate),
    )
