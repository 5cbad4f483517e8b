"""Linear models: a loss on the residuals and a penalty on the weights, in float64.

`jaxreg.minimise` serves all that are smooth. A loss on the residuals
`X w - y` is a penalty of jaxreg too, as a function of a vector. Every fit comes with
the force of each sample, the gradient of the loss at its residual: with it `kkt` checks
the fit, and scikit-learn solves the same problem (`reference`).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn import linear_model

import jaxreg

# NumPy's, JAX's or a tracer.
Array = Any
Params = Any
Gradient = Callable[[Params], Params]

NONE = jaxreg.L1(0.0)
UNTIL_RESTART, RESTARTS = 1000, 40
# Relative to the strength: what float64 reaches wherever scikit-learn does.
_RELATIVE_TOLERANCE = 1e-11
_MOST_ITERATIONS = 20_000


class Point(NamedTuple):
    """The parameters, the point ahead of them, and how far momentum has grown."""

    params: Params
    ahead: Params
    growth: jax.Array


class Solution(NamedTuple):
    """The parameters, the iterations they took, and the largest KKT violation."""

    params: Params
    iterations: jax.Array
    violation: jax.Array


def ista_step(
    gradient: Gradient, penalty: jaxreg.Penalty, rate: Any, params: Params
) -> Params:
    """A gradient step and the prox, both of size `rate`, at most 1 / curvature."""
    grads = gradient(params)
    return penalty.prox(jax.tree.map(lambda w, g: w - rate * g, params, grads), rate)


def fista_start(params: Params) -> Point:
    """The point `params` without momentum."""
    return Point(params, params, jnp.ones(()))


def fista_step(
    gradient: Gradient,
    penalty: jaxreg.Penalty,
    rate: Any,
    point: Point,
    *,
    restart: bool,
) -> Point:
    """Beck and Teboulle 2009, eq. 4.1 to 4.3.

    With `restart` the momentum is dropped where it points uphill (O'Donoghue and Candes
    2015): without it the iterates circle the solution of a well curved problem.
    """
    new = ista_step(gradient, penalty, rate, point.ahead)
    moves = jax.tree.map(jnp.subtract, new, point.params)
    if restart:
        backs = jax.tree.map(jnp.subtract, point.ahead, new)
        products = jax.tree.map(lambda a, b: jnp.sum(a * b), backs, moves)
        is_uphill = sum(jax.tree.leaves(products), start=jnp.zeros(())) > 0
        before = jnp.where(is_uphill, 1.0, point.growth)
    else:
        before = point.growth
    growth = (1 + jnp.sqrt(1 + 4 * before**2)) / 2
    weight = (before - 1) / growth
    ahead = jax.tree.map(lambda w, move: w + weight * move, new, moves)
    return Point(new, ahead, growth)


def solve(
    loss: Callable[..., jax.Array],
    penalty: jaxreg.Penalty,
    start: Params,
    data: tuple[Any, ...] = (),
    *,
    tolerance: Any = _RELATIVE_TOLERANCE,
    most: int = _MOST_ITERATIONS,
) -> Solution:
    """`jaxreg.minimise`, also inside `jit` and `vmap`: tables show the violation."""
    fit = jaxreg.minimise(
        loss,
        penalty,
        start,
        data=data,
        tolerance=tolerance,
        max_steps=most,
        on_failure="ignore",
    )
    return Solution(fit.params, fit.steps, fit.stationarity * fit.scale)


def violation(penalty: jaxreg.Penalty, gradient: Gradient, params: Params) -> jax.Array:
    """The largest entry of `stationarity`: 0 at a minimum of loss + penalty."""
    distances = jax.tree.leaves(penalty.stationarity(params, gradient(params)))
    return functools.reduce(jnp.maximum, map(jnp.max, distances))


class Fit(NamedTuple):
    """The weights, and the gradient of the loss at the residual of each sample."""

    weights: Array
    forces: Array


def squared(samples: int) -> jaxreg.L2:
    """`||r||^2 / (2 n)`."""
    return jaxreg.L2(0.5 / samples)


def huber(samples: int, knot: Any) -> jaxreg.Huber:
    """The mean of `r^2 / 2`, straight from `knot` on."""
    return jaxreg.Huber(1 / samples, knot)


def absolute(samples: int) -> jaxreg.L1:
    """The mean of `|r|`."""
    return jaxreg.L1(1 / samples)


@jax.jit
def fit(
    loss: jaxreg.Penalty, penalty: jaxreg.Penalty, design: Array, answers: Array
) -> Fit:
    """The minimiser of loss + penalty."""
    if isinstance(loss, jaxreg.L1):
        return _primal_dual(loss, penalty, design, answers)

    def value(w: jax.Array) -> jax.Array:
        return loss.value(design @ w - answers)

    weights = solve(value, penalty, jnp.zeros(design.shape[1])).params
    return Fit(weights, loss.subgradient(design @ weights - answers))


def penalties(name: str, least: float, largest: float, count: int) -> Any:
    """L1 or L2 with an axis of strengths to choose from; no penalty by other names."""
    if name not in ("L1", "L2"):
        return jaxreg.L1(jnp.zeros(1))
    kind = jaxreg.L1 if name == "L1" else jaxreg.L2
    return kind(jnp.geomspace(least, largest, count))


@jax.jit
def path(
    loss: jaxreg.Penalty, penalty: jaxreg.Penalty, design: Array, answers: Array
) -> Fit:
    """A fit for every number along the first axis of the penalty's fields."""
    return jax.vmap(fit, in_axes=(None, 0, None, None))(loss, penalty, design, answers)


def best_of_path(
    loss: jaxreg.Penalty,
    penalties: Any,
    train: tuple[Array, Array],
    valid: tuple[Array, Array],
) -> tuple[Fit, Any]:
    """The fit with the least squared error on validation data, and its penalty."""
    fits = path(loss, penalties, *train)
    errors = np.mean((fits.weights @ valid[0].T - valid[1]) ** 2, axis=1)
    best = int(np.argmin(errors))
    fit, penalty = jax.tree.map(lambda leaf: np.asarray(leaf)[best], (fits, penalties))
    return fit, penalty


def checked(
    loss: jaxreg.Penalty,
    penalty: jaxreg.Penalty,
    design: Array,
    answers: Array,
    at: Fit,
) -> dict[str, float]:
    """The distances of a fit from scikit-learn's weights and from a minimum."""
    off = np.abs(at.weights - reference(loss, penalty, design, answers))
    return {
        "from_sklearn": float(off.max()),
        "kkt": float(kkt(loss, penalty, design, answers, at)),
    }


@jax.jit
def fit_gram(
    penalty: jaxreg.Penalty, gram: Array, target: Array, start: Array
) -> Solution:
    """The minimiser of `w' gram w / 2 - target' w` + penalty, sought from `start`."""
    return solve(lambda w: w @ (gram @ w / 2 - target), penalty, start)


def fit_with_intercept(
    penalty: jaxreg.Penalty,
    is_logistic: bool,
    start: Params,
    data: tuple[Array, Array],
    weights: Array,
    *,
    tolerance: Any,
    most: int,
) -> Solution:
    """Least squares or logistic regression by `kernel` and a free `bias`.

    `penalty` acts on `kernel` alone. `weights` are those of the samples and sum to 1.
    """
    x, y = data

    def loss(params: Params) -> jax.Array:
        scores = x @ params["kernel"] + params["bias"]
        if is_logistic:
            return weights @ (jax.nn.softplus(scores) - y * scores)
        return weights @ (scores - y) ** 2 / 2

    rules = jaxreg.on_kernels(penalty)
    return solve(loss, rules, start, tolerance=tolerance, most=most)


def _primal_dual(
    loss: jaxreg.L1, penalty: jaxreg.Penalty, design: Array, answers: Array
) -> Fit:
    """For a loss with corners: Chambolle and Pock's method, restarted at its average.

    Without restarts (Applegate, Hinder, Lu and Lubin 2023) some problems are 1e-3 off
    after as many steps; with them the answers agree to rounding.
    """
    shifted = jaxreg.anchored(loss, answers)
    norm = jnp.linalg.norm(design, 2)
    # The size of the weights over that of the forces, for features of unit scale; the
    # median, since an outlier would make it too large and the method slow.
    scale = 0.2 * jnp.median(jnp.abs(answers)) * jnp.sqrt(len(design))
    primal, dual = 0.99 * scale / norm, 0.99 / (scale * norm)

    def step(carry: tuple[Any, ...], _: Any) -> tuple[Any, None]:
        w, ahead, u, total = carry
        u = jaxreg.conjugate_prox(shifted, u + dual * (design @ ahead), dual)
        new = penalty.prox(w - primal * (design.T @ u), primal)
        total = jax.tree.map(jnp.add, total, Fit(new, u))
        return (new, 2 * new - w, u, total), None

    def restart(at: Fit, _: Any) -> tuple[Fit, None]:
        start = (at.weights, at.weights, at.forces, jax.tree.map(jnp.zeros_like, at))
        (*_, total), _ = jax.lax.scan(step, start, length=UNTIL_RESTART)
        return jax.tree.map(lambda leaf: leaf / UNTIL_RESTART, total), None

    start = Fit(jnp.zeros(design.shape[1]), jnp.zeros(len(design)))
    fit, _ = jax.lax.scan(restart, start, length=RESTARTS)
    return fit


@jax.jit
def kkt(
    loss: jaxreg.Penalty,
    penalty: jaxreg.Penalty,
    design: Array,
    answers: Array,
    at: Fit,
) -> jax.Array:
    """The violation of the conditions of a minimum; 0 at one.

    The larger of two numbers: the distance of the forces on the weights from the
    subdifferential of the penalty, and the Fenchel-Young gap between the forces and
    the loss, which is 0 if they are its subgradient. A convex loss with value 0 at 0
    needs no conjugate for it.
    """
    w, u = at
    r = design @ w - answers
    from_penalty = jnp.max(penalty.stationarity(w, design.T @ u))
    if isinstance(loss, jaxreg.L1):
        return jnp.maximum(from_penalty, loss.value(r) - u @ r)
    return from_penalty


def reference(
    loss: jaxreg.Penalty,
    penalty: jaxreg.Penalty,
    design: np.ndarray,
    answers: np.ndarray,
    tolerance: float = 1e-13,
) -> np.ndarray:
    """The weights that scikit-learn finds for the same loss and penalty."""
    if isinstance(loss, jaxreg.Huber):
        return _huber_by_lasso(float(loss.knot), design, answers)
    model = _model(loss, penalty, len(design), tolerance)
    return np.asarray(model.fit(design, answers).coef_)


def _model(
    loss: jaxreg.Penalty, penalty: Any, samples: int, tolerance: float = 1e-13
) -> Any:
    exact = {"fit_intercept": False, "tol": tolerance, "max_iter": 1_000_000}
    if isinstance(loss, jaxreg.L1):
        # Its loss is half the absolute residual.
        alpha = float(penalty.strength) / 2
        return linear_model.QuantileRegressor(alpha=alpha, fit_intercept=False)
    if isinstance(penalty, jaxreg.L2):
        alpha = 2 * samples * float(penalty.strength)
        return linear_model.Ridge(alpha=alpha, fit_intercept=False)
    if isinstance(penalty, jaxreg.ElasticNet):
        l1, twice = float(penalty.l1), 2 * float(penalty.l2)
        return linear_model.ElasticNet(l1 + twice, l1_ratio=l1 / (l1 + twice), **exact)
    if float(penalty.strength) == 0:
        return linear_model.LinearRegression(fit_intercept=False)
    return linear_model.Lasso(float(penalty.strength), **exact)


def _huber_by_lasso(knot: float, design: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Huber's loss without a penalty is a lasso on one shift per sample.

    `min_r' (r - r')^2 / 2 + knot |r'|` is Huber's function of r (Sardy, Tseng and Bruce
    2001): the shifts are what is left of the answers beside the span of the features.
    """
    basis, _ = np.linalg.qr(design)
    beside = np.eye(len(design)) - basis @ basis.T
    lasso = _model(squared(len(design)), jaxreg.L1(knot / len(design)), len(design))
    shifts = lasso.fit(beside, beside @ answers).coef_
    return np.linalg.lstsq(design, answers - shifts)[0]
