"""Linear and generalised linear models: a loss with intercept, scales and weights."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxreg._core.messages import shown
from jaxreg._core.penalty import Penalty, Tree
from jaxreg._core.pytree import derived, pytree_dataclass, static
from jaxreg._core.ranges import is_known, real_array
from jaxreg.rules.by_path import ByPath, by_path
from jaxreg.solve._families import FAMILIES, Family, Losses, family_of, response

COEFFICIENTS, INTERCEPT = "coefficients", "intercept"
_OWN_RULE = f"^{COEFFICIENTS}$"

# Columns whose standard deviation is below this many units of rounding of their mean
# are constant.
_CONSTANT = 16


@pytree_dataclass
class Linear:
    """The mean loss of a linear predictor; the result of `jaxreg.solve.linear`.

    `jaxreg.minimise(problem, penalty)` fits it. Its parameters are a dict of
    `coefficients`, of shape (features,) or (features, outputs), and, with an intercept,
    `intercept`, of shape () or (outputs,).
    """

    # Features first: solvers gather features, and multiply by rows that lie in memory.
    columns: jax.Array = derived()
    y: Any = derived()
    sample_weight: jax.Array = derived()
    offset: jax.Array = derived()
    family: str | Losses = static()
    intercept: bool = static()
    standardise: bool = static()

    @property
    def _family(self) -> Family:
        return family_of(self.family)

    def predict(self, params: Tree, x: ArrayLike | None = None) -> jax.Array:
        """`x @ coefficients + intercept`; without `x` that of the samples, + offset."""
        columns = self.columns if x is None else jnp.asarray(x).T
        predictor = (params[COEFFICIENTS].T @ columns).T
        if INTERCEPT in params:
            predictor = predictor + params[INTERCEPT][None]
        return predictor + self.offset if x is None else predictor

    def loss(self, params: Tree) -> jax.Array:
        """The weighted mean of the losses."""
        return self.mean_loss(self.predict(params))

    def mean_loss(self, predictor: jax.Array) -> jax.Array:
        """The loss as a function of the predictor of the samples."""
        return self._family.mean(predictor, self.y, self.sample_weight)

    @property
    def shares(self) -> jax.Array:
        """The weights, with sum 1."""
        return self.sample_weight / jnp.sum(self.sample_weight)

    def mean_residual(self) -> jax.Array:
        """The intercept of centred columns with squared losses."""
        return jnp.sum(self.shares * (self.y - self.offset))

    def deviance(self, params: Tree) -> jax.Array:
        """Twice the mean loss above a perfect fit's; gaussian: the mean square."""
        return self._family.deviance(self.predict(params), self.y, self.sample_weight)

    def zeros(self) -> Tree:
        """Parameters that are all 0."""
        is_many = not isinstance(self.y, tuple) and jnp.ndim(self.y) == 2
        outputs = self.y.shape[1:] if is_many else ()
        shape, dtype = (len(self.columns), *outputs), self.columns.dtype
        params = {COEFFICIENTS: jnp.zeros(shape, dtype)}
        if self.intercept:
            params[INTERCEPT] = jnp.zeros(outputs, dtype)
        return params


@pytree_dataclass
class Standardised:
    """A problem in centred and scaled columns, and the way back."""

    problem: Linear = derived()
    center: jax.Array = derived()
    # The reciprocal of the standard deviation, 0 if that is 0.
    scale: jax.Array = derived()

    def into(self, params: Tree) -> Tree:
        """Parameters of the columns of x as those of standardised columns."""
        is_constant = self.scale == 0
        spread = jnp.where(is_constant, 0, 1 / jnp.where(is_constant, 1, self.scale))
        coefficients = params[COEFFICIENTS]
        scaled = _by_column(spread, coefficients)
        if not self.problem.intercept:
            return {COEFFICIENTS: scaled}
        shift = self.center @ coefficients
        return {COEFFICIENTS: scaled, INTERCEPT: params[INTERCEPT] + shift}

    def back(self, params: Tree) -> Tree:
        """The inverse of `into`."""
        coefficients = _by_column(self.scale, params[COEFFICIENTS])
        if not self.problem.intercept:
            return {COEFFICIENTS: coefficients}
        shift = self.center @ coefficients
        return {COEFFICIENTS: coefficients, INTERCEPT: params[INTERCEPT] - shift}


@jax.jit
def standardised(problem: Linear) -> Standardised:
    """The problem in columns of weighted mean 0, if it has an intercept, and sd 1."""
    columns, weights = problem.columns, problem.shares
    if not (problem.intercept or problem.standardise):
        count, dtype = len(columns), columns.dtype
        return Standardised(problem, jnp.zeros(count, dtype), jnp.ones(count, dtype))
    mean = columns @ weights
    center = mean if problem.intercept else jnp.zeros_like(mean)
    scale = jnp.ones_like(mean)
    if problem.standardise:
        spread = jnp.sqrt((columns - mean[:, None]) ** 2 @ weights)
        rounding = _CONSTANT * jnp.finfo(columns.dtype).eps * jnp.abs(mean)
        is_constant = spread <= rounding
        scale = jnp.where(is_constant, 0, 1 / jnp.where(is_constant, 1, spread))
    columns = (columns - center[:, None]) * scale[:, None]
    return Standardised(dataclasses.replace(problem, columns=columns), center, scale)


def linear(
    x: ArrayLike,
    y: Any,
    *,
    family: str | Losses = "gaussian",
    intercept: bool = True,
    standardise: bool = True,
    sample_weight: ArrayLike | None = None,
    offset: ArrayLike | None = None,
) -> Linear:
    """The mean loss of a linear model, to be given to `jaxreg.minimise` or a path.

    The loss is `sum_i u_i loss(x_i @ coefficients + intercept + offset_i, y_i)` over
    the sum of the weights `u_i`: with `L1(s)` it is scikit-learn's `Lasso(alpha=s)` and
    glmnet's `lambda = s`. The penalty acts on the coefficients, never on the intercept;
    rules of `by_path` may name `coefficients` and `intercept` themselves.

    Args:
      x: shape (samples, features).
      y: shape (samples,), or (samples, outputs) for several outputs, whose coefficients
        have the shape (features, outputs).
      family: "gaussian", `(p - y)^2 / 2` of the predictor `p`; "binomial", y of 0 and
        1; "poisson", counts and a log link; "multinomial", labels 0, 1, ...; "cox",
        `y = (time, event)`, without an intercept; or a function `(predictor, y)` that
        returns a loss per sample.
      intercept: with a free intercept.
      standardise: penalise the coefficients of columns that are divided by their
        weighted standard deviation, as glmnet does. The coefficients that are returned
        are those of x. A constant column gets the coefficient 0.
      sample_weight: shape (samples,), >= 0; an integer counts as repeated samples.
      offset: what is added to the predictor, of its shape.

    Raises:
      TypeError, ValueError: an array of another shape, or values outside the family.

    Reference: Friedman, Hastie and Tibshirani 2010, Regularization paths for
    generalized linear models via coordinate descent.

    >>> import jax.numpy as jnp, jaxreg
    >>> x = jnp.array([[1.0, 10.0], [2.0, 30.0], [3.0, 20.0], [4.0, 10.0]])
    >>> problem = jaxreg.solve.linear(x, jnp.array([3.0, 5.0, 7.0, 9.0]))
    >>> fit = jaxreg.minimise(problem, jaxreg.L1(0.1))
    >>> print([f"{c:.3f}" for c in fit.params["coefficients"]])
    ['1.911', '0.000']
    >>> print(f"{fit.params['intercept']:.3f}")
    1.224
    """
    x = real_array("linear: x", x)
    if x.ndim != 2 or not x.shape[0]:
        raise ValueError(f"linear: x has shape {x.shape}; allowed: (samples, features)")
    is_named = isinstance(family, str) and family in FAMILIES
    if not is_named and (isinstance(family, str) or not callable(family)):
        raise ValueError(
            f"linear: family is {shown(family)}; allowed: {', '.join(FAMILIES)}, or a "
            "function (predictor, y) that returns a loss per sample"
        )
    if family == "cox" and intercept:
        raise ValueError(
            "linear: intercept=True with family 'cox'; allowed: intercept=False, since "
            "the baseline hazard is free"
        )
    if is_known(lambda x: ~jnp.isfinite(x), x):
        raise ValueError(
            "linear: x holds numbers that are not finite; impute or drop them"
        )
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    samples = len(x)
    weights = jnp.ones(samples)
    if sample_weight is not None:
        weights = real_array("linear: sample_weight", sample_weight)
    if weights.shape != (samples,):
        raise ValueError(
            f"linear: sample_weight has shape {weights.shape}; allowed: ({samples},)"
        )
    if is_known(lambda w: ~(jnp.isfinite(w) & (w >= 0)) | (jnp.sum(w) == 0), weights):
        raise ValueError(
            "linear: sample_weight holds a negative number or one that is not finite, "
            "or zeros alone; allowed: numbers >= 0"
        )
    y = response(family, y, samples)
    shift = jnp.zeros((), x.dtype)
    if offset is not None:
        shift = real_array("linear: offset", offset, x.dtype)
    if offset is not None and shift.shape[:1] != (samples,):
        raise ValueError(
            f"linear: offset has shape {shift.shape}; allowed: that of the predictor, "
            f"({samples},) or ({samples}, outputs)"
        )
    weights = weights.astype(x.dtype)
    return Linear(x.T, y, weights, shift, family, bool(intercept), bool(standardise))


def loss_of(params: Tree, problem: Linear) -> jax.Array:
    return problem.loss(params)


def on_coefficients(penalty: Penalty) -> Penalty:
    """The penalty on the coefficients alone; rules stay what they are."""
    if isinstance(penalty, ByPath):
        return penalty
    return by_path([(_OWN_RULE, penalty)])


def alone_on_coefficients(penalty: Penalty) -> Penalty | None:
    """The penalty that `on_coefficients` put on the coefficients, or None."""
    if isinstance(penalty, ByPath) and penalty.patterns == (_OWN_RULE,):
        return penalty.penalties[0]
    return None


def _by_column(numbers: jax.Array, coefficients: jax.Array) -> jax.Array:
    return numbers.reshape(-1, *(1,) * (coefficients.ndim - 1)) * coefficients
