"""Solutions at every strength, and their validation on held-out samples."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxreg._core.checks import check_numbers, check_order, check_prox
from jaxreg._core.groups import check_count
from jaxreg._core.messages import shown
from jaxreg._core.penalty import Number, Penalty, Tree
from jaxreg._core.pytree import text_of
from jaxreg._core.ranges import (
    BETWEEN_0_AND_1,
    check_number,
    check_positive,
    is_known,
    real_array,
)
from jaxreg.calculus.scaled import scaled
from jaxreg.model_selection._selection import ValidationCurve, validation_curve
from jaxreg.model_selection._sweep import checked_strengths, strength_grid
from jaxreg.reports.measure import max_strength
from jaxreg.rules.by_path import read
from jaxreg.solve._general import CONVERGED, Point
from jaxreg.solve._linear import (
    COEFFICIENTS,
    INTERCEPT,
    Linear,
    on_coefficients,
    standardised,
)
from jaxreg.solve._minimise import ConvergenceWarning
from jaxreg.solve._working_set import (
    FIRST_CAPACITY,
    Memory,
    empty_memory,
    solve_linear,
)

# A factor on the penalty that keeps all it penalises at zero.
_PROHIBITIVE = 1e30

_MAX_STEPS = 10_000

Metric = Literal["deviance"] | Callable[[jax.Array, jax.Array], jax.Array]
"""The deviance of the family, or a function `(predictor, y)`: an error per sample."""


class Path(NamedTuple):
    """The fits of one problem at every strength, strongest first.

    Attributes:
      strengths: shape (strengths,), factors on `penalty`.
      coefficients: shape (strengths, features), or (strengths, features, outputs).
      intercepts: shape (strengths,), or (strengths, outputs); None without intercept.
      nonzeros: the number of coefficients that are not zero.
      deviance_ratio: the share of the null model's deviance that the fit explains.
      stationarity: as in `jaxreg.states.Fit`.
      converged: `stationarity <= tolerance`.
      problem: what was fitted.
      penalty: what the strengths multiply.
      tolerance: see `path`.
    """

    strengths: jax.Array
    coefficients: jax.Array
    intercepts: jax.Array | None
    nonzeros: jax.Array
    deviance_ratio: jax.Array
    stationarity: jax.Array
    converged: jax.Array
    problem: Linear
    penalty: Penalty
    tolerance: Number

    def __repr__(self) -> str:
        return text_of(self, _lines, self.strengths, rank=1)


def path(
    problem: Linear,
    penalty: Penalty,
    *,
    strengths: ArrayLike | None = None,
    count: int = 100,
    ratio: Number | None = None,
    tolerance: Number = 1e-4,
) -> Path:
    """Fits a linear model at every strength, each from the solution before it.

    Without `strengths` the grid begins where all that is penalised is zero, with what
    is free (the intercept, entries of weight 0) fitted, and ends at `ratio` of that.
    Warns if a fit did not converge.

    Args:
      problem: of `jaxreg.solve.linear`.
      penalty: of strength 1, as `jaxreg.L1(1.0)`; the strengths multiply it.
      strengths: shape (strengths,), >= 0, strongest first.
      count: the number of strengths of the grid, at least 2.
      ratio: the weakest strength of the grid over the strongest. None: 0.01 with fewer
        samples than features, else 0.0001, as in glmnet.
      tolerance: of each fit, as in `jaxreg.minimise`.

    Raises:
      TypeError, ValueError: a problem of another kind, a penalty that has no largest
        strength and no `strengths` either, or an argument out of range.

    Reference: Friedman, Hastie and Tibshirani 2010, Section 2.5.

    >>> import jax.numpy as jnp, jaxreg
    >>> from jaxreg import model_selection
    >>> x = jnp.array([[1.0, 10.0], [2.0, 30.0], [3.0, 20.0], [4.0, 10.0]])
    >>> problem = jaxreg.solve.linear(x, jnp.array([3.0, 5.0, 7.0, 9.0]))
    >>> path = model_selection.path(problem, jaxreg.L1(1.0), count=4, ratio=0.1)
    >>> print([f"{c:.2f}" for c in path.coefficients[:, 0]], path.nonzeros)
    ['0.00', '1.07', '1.57', '1.80'] [0 1 1 1]
    """
    check_order(penalty, problem=problem)
    if not isinstance(problem, Linear):
        raise TypeError(
            f"path: problem is {shown(problem)}; allowed: that of "
            "jaxreg.solve.linear(x, y). For other losses use sweep with minimise"
        )
    check_numbers(penalty)
    check_prox("path", penalty)
    check_positive("path: tolerance", tolerance)
    check_count("path: count", count, 2)
    if ratio is not None:
        check_number("path: ratio", ratio, BETWEEN_0_AND_1)
    within, inner = standardised(problem), on_coefficients(penalty)
    read(inner, within.problem.zeros())
    null = _null_model(within.problem, inner, tolerance)
    if strengths is None:
        features, samples = problem.columns.shape
        if ratio is None:
            ratio = 1e-2 if samples < features else 1e-4
        largest = max_strength(inner, null.grads).overall
        _check_largest(penalty, largest)
        strengths = strength_grid(largest, count, ratio)
    grid = checked_strengths("path", strengths).astype(problem.columns.dtype)
    if is_known(lambda x: x[1:] > x[:-1], grid):
        raise ValueError(
            f"path: strengths increase from {float(grid[0]):.3g} to "
            f"{float(grid[-1]):.3g}; allowed: strongest first, as jnp.sort(strengths, "
            "descending=True) gives"
        )
    fits = _fits(within.problem, inner, grid, tolerance, null.params)
    params = jax.vmap(within.back)(fits.params)
    coefficients = params[COEFFICIENTS]
    axes = tuple(range(1, coefficients.ndim))
    out = Path(
        strengths=grid,
        coefficients=coefficients,
        intercepts=params.get(INTERCEPT),
        nonzeros=jnp.sum(coefficients != 0, axis=axes),
        deviance_ratio=1 - fits.deviance / within.problem.deviance(null.params),
        stationarity=fits.stationarity,
        converged=fits.converged,
        problem=problem,
        penalty=penalty,
        tolerance=tolerance,
    )
    _warn("path", grid, fits.stationarity, fits.converged, tolerance)
    return out


def _check_largest(penalty: Penalty, largest: jax.Array) -> None:
    """Raises if a grid cannot begin at the largest strength of a penalty."""
    if is_known(lambda x: (x <= 0) | ~jnp.isfinite(x), largest):
        raise ValueError(
            f"path: penalty is {shown(penalty)}, whose largest strength is "
            f"{float(largest):g}; allowed: a penalty of strength 1 with a kink at 0, "
            "as L1(1.0), and a response that depends on the features. For other "
            "penalties, as L2 and L0, pass strengths=, strongest first"
        )


def cross_validate(
    path: Path, folds: ArrayLike, *, metric: Metric = "deviance"
) -> ValidationCurve:
    """The validation error at every strength of a path, and the strengths it selects.

    Each fold is fitted anew at the strengths of the path, standardised by its own
    samples, and judged on those that it holds out. Warns if a fit did not converge.

    Args:
      path: of `path`, on all samples.
      folds: booleans, shape (folds, samples), True for validation, of `fold_masks`.
      metric: "deviance", which for the gaussian family is the mean squared error; or a
        function `(predictor, y)` that returns an error per sample, of which the
        weighted mean is taken.

    Raises:
      ValueError: masks of another shape, or a fold that holds out all or nothing.

    >>> import jax, jax.numpy as jnp, jaxreg
    >>> from jaxreg import model_selection as ms
    >>> x = jax.random.normal(jax.random.key(0), (60, 5))
    >>> y = x[:, 0] + jax.random.normal(jax.random.key(1), (60,))
    >>> path = ms.path(jaxreg.solve.linear(x, y), jaxreg.L1(1.0), count=20, ratio=0.01)
    >>> folds = ms.fold_masks(jax.random.key(2), 5, 60)
    >>> choice = ms.cross_validate(path, folds)
    >>> print(path.nonzeros[choice.one_standard_error])
    1
    """
    if not isinstance(path, Path):
        raise TypeError(
            f"cross_validate: path is {shown(path)}; allowed: that of "
            "model_selection.path(problem, penalty)"
        )
    if metric != "deviance" and not callable(metric):
        raise ValueError(
            f"cross_validate: metric is {shown(metric)}; allowed: 'deviance', or a "
            "function (predictor, y) that returns an error per sample"
        )
    masks = real_array("cross_validate: folds", folds)
    samples = path.problem.columns.shape[1]
    if masks.ndim != 2 or masks.shape[1] != samples or masks.dtype != bool:
        raise ValueError(
            f"cross_validate: folds has shape {masks.shape} and dtype {masks.dtype}; "
            f"allowed: booleans of shape (folds, {samples}), as fold_masks gives"
        )
    if is_known(lambda m: jnp.all(m, axis=1) | ~jnp.any(m, axis=1), masks):
        raise ValueError(
            "cross_validate: a fold holds out all samples or none; allowed: some of "
            "them"
        )
    inner = on_coefficients(path.penalty)
    errors, stationarity, converged = _validated(
        path.problem, inner, path.strengths, masks, path.tolerance, metric
    )
    grid = jnp.broadcast_to(path.strengths, converged.shape)
    _warn("cross_validate", grid, stationarity, converged, path.tolerance)
    return validation_curve(errors.T)


def _lines(path: Path) -> tuple[str, dict[str, str]]:
    """The title and the rows of `print(path)`."""
    family = path.problem.family if isinstance(path.problem.family, str) else "own"
    features, samples = path.problem.columns.shape
    strengths, nonzeros, ratios, distances, converged = jax.device_get(
        (
            path.strengths,
            path.nonzeros,
            path.deviance_ratio,
            path.stationarity,
            path.converged,
        )
    )
    count = len(strengths)
    reached = "all" if converged.all() else f"{converged.sum()} of {count}"
    size = path.coefficients.size // count
    return f"{count} {family} fits to {samples} samples and {features} features", {
        "penalty": shown(path.penalty),
        "strengths": f"{strengths[0]:.3g} to {strengths[-1]:.3g}",
        "non-zeros": f"{nonzeros.min()} to {nonzeros.max()} of {size}",
        "deviance": f"{ratios.min():.1%} to {ratios.max():.1%} explained",
        "converged": f"{reached}; largest stationarity {distances.max():.1g}, "
        f"tolerance {float(path.tolerance):g}",
    }


_Carry = tuple[Tree, Memory | None]
"""What a path hands on: parameters to start from, and the working set."""


class _Fits(NamedTuple):
    """Fits in standardised columns, stacked by strength."""

    params: Tree
    deviance: jax.Array
    stationarity: jax.Array
    converged: jax.Array


@jax.jit
def _null_model(problem: Linear, penalty: Penalty, tolerance: Number) -> Point:
    """What is free fitted, and all that is penalised at zero."""
    prohibited = scaled(penalty, _PROHIBITIVE)
    # Few features are free: with the largest set all would be compiled twice.
    arguments = (problem, prohibited, problem.zeros(), tolerance, _MAX_STEPS)
    return solve_linear(*arguments, capacity=FIRST_CAPACITY)[0].point


@jax.jit
def _fits(
    problem: Linear,
    penalty: Penalty,
    strengths: jax.Array,
    tolerance: Number,
    start: Tree,
) -> _Fits:
    def fit(carry: _Carry, strength: jax.Array) -> tuple[_Carry, _Fits]:
        start, memory = carry
        end, memory = solve_linear(
            problem, scaled(penalty, strength), start, tolerance, _MAX_STEPS, memory
        )
        params = end.point.params
        fits = _Fits(
            params=params,
            deviance=problem.deviance(params),
            stationarity=end.point.relative,
            converged=end.reason == CONVERGED,
        )
        return (params, memory), fits

    return jax.lax.scan(fit, (start, empty_memory(problem, penalty)), strengths)[1]


@functools.partial(jax.jit, static_argnames="metric")
def _validated(
    problem: Linear,
    penalty: Penalty,
    strengths: jax.Array,
    masks: jax.Array,
    tolerance: Number,
    metric: Metric,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Errors, stationarities and flags, each of shape (folds, strengths)."""

    def of_fold(mask: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        weights = problem.sample_weight
        train = dataclasses.replace(problem, sample_weight=jnp.where(mask, 0, weights))
        test = dataclasses.replace(problem, sample_weight=jnp.where(mask, weights, 0))
        within = standardised(train)
        start = within.problem.zeros()
        fits = _fits(within.problem, penalty, strengths, tolerance, start)

        def error(params: Tree) -> jax.Array:
            params = within.back(params)
            if metric == "deviance":
                return test.deviance(params)
            errors = metric(test.predict(params), test.y)
            total = jnp.sum(test.sample_weight)
            return jnp.sum(test.sample_weight * errors) / total

        return jax.lax.map(error, fits.params), fits.stationarity, fits.converged

    return jax.lax.map(of_fold, masks)


def _warn(
    caller: str,
    strengths: jax.Array,
    stationarity: jax.Array,
    converged: jax.Array,
    tolerance: Number,
) -> None:
    """Outside of traces, says how many fits did not converge, and which is worst."""
    if isinstance(converged, jax.core.Tracer) or bool(jnp.all(converged)):
        return
    # A NaN is the worst.
    worst = int(jnp.argmax(jnp.where(converged, 0, stationarity)))
    distance = float(stationarity.ravel()[worst])
    warnings.warn(
        f"{caller}: {int(jnp.sum(~converged))} of {converged.size} fits did not "
        f"converge; the worst has a stationarity of {distance:.1e} of the strength at "
        f"strength {float(strengths.ravel()[worst]):.3g}, tolerance "
        f"{float(tolerance):g}",
        ConvergenceWarning,
        stacklevel=3,
    )
