"""Selection from a sweep: a strength, a set of units, or a Pareto front.

All functions are pure and run inside jit.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxreg._core.messages import shown
from jaxreg._core.penalty import Number
from jaxreg._core.pytree import text_of
from jaxreg._core.ranges import (
    UNIT_INTERVAL,
    check_number,
    is_known,
    is_number,
    real_array,
)

# The stable units that are printed by their index.
_MOST_UNITS = 20


class ValidationCurve(NamedTuple):
    """Mean and standard error per strength, and the indices of two selections."""

    mean: jax.Array
    standard_error: jax.Array
    least: jax.Array
    one_standard_error: jax.Array

    def __repr__(self) -> str:
        return text_of(self, _curve_lines, self.mean, rank=1)


def _curve_lines(curve: ValidationCurve) -> tuple[str, dict[str, str]]:
    """The title and the rows of `print(curve)`."""

    def selected(index: int) -> str:
        error, spread = float(means[index]), float(spreads[index])
        return f"index {index}, error {error:.4g} +- {spread:.2g}"

    means, spreads = jax.device_get((curve.mean, curve.standard_error))
    return f"{len(means)} strengths", {
        "least": selected(int(curve.least)),
        "one standard error": selected(int(curve.one_standard_error)),
    }


def validation_curve(
    errors: ArrayLike, converged: ArrayLike | None = None
) -> ValidationCurve:
    """The mean error at each strength and the strengths it selects.

    `least` is the index of the smallest mean error (minimum rule). `one_standard_error`
    is the index of the strongest strength whose mean error is within one standard error
    of it (one-standard-error rule): the sparsest model that the data do not distinguish
    from the best. A strength with an error of NaN or infinity, of either sign, is not
    selected. All folds have the same weight, as in scikit-learn (glmnet weights folds
    by their samples; those of `fold_masks` differ by at most one). The standard error
    of the mean treats folds as independent. They share training samples, so it is a
    rough guide. Half precision is averaged in float32.

    Args:
      errors: validation errors, smaller is better, shape (strengths, folds) or
        (strengths, seeds), strongest first, with two folds or more.
      converged: `Fit.converged` of the same fits, of the shape of `errors`: the error
        of a fit that did not converge counts as NaN.

    Raises:
      ValueError: `errors` or `converged` has another shape, or no strength has only
        finite errors of fits that converged.

    Reference: Breiman, Friedman, Olshen and Stone 1984, Section 3.4.3; Hastie,
      Tibshirani and Friedman 2009, Section 7.10.

    >>> import jax.numpy as jnp
    >>> from jaxreg import model_selection
    >>> errors = jnp.array([[0.9, 0.8], [0.5, 0.3], [0.4, 0.3], [0.5, 0.4]])
    >>> curve = model_selection.validation_curve(errors)
    >>> print(int(curve.least), int(curve.one_standard_error))
    2 1
    """
    errors = real_array("validation_curve: errors", errors)
    if errors.ndim != 2 or not errors.shape[0] or errors.shape[1] < 2:
        raise ValueError(
            f"validation_curve: errors has shape {errors.shape}; allowed: (strengths, "
            "folds) with at least one strength and two folds"
        )
    errors = errors.astype(jnp.promote_types(errors.dtype, jnp.float32))
    if converged is not None:
        flags = _flags("validation_curve", converged, errors.shape)
        errors = jnp.where(flags, errors, jnp.nan)
    mean = jnp.mean(errors, axis=1)
    if is_known(lambda x: ~jnp.any(jnp.isfinite(x)), mean):
        raise ValueError(
            "validation_curve: errors has a NaN or an infinity at every strength; "
            "allowed: finite numbers at one strength or more. Lower the learning rate, "
            "raise max_steps, or end the grid earlier"
        )
    standard_error = jnp.std(errors, axis=1, ddof=1) / errors.shape[1] ** 0.5
    is_finite = jnp.isfinite(mean)
    ranked = jnp.where(is_finite, mean, jnp.inf)
    least = jnp.argmin(ranked)
    # A mask, since an axis with explicit sharding cannot be indexed.
    is_least = jnp.arange(len(ranked)) == least
    limit = jnp.sum(jnp.where(is_least, ranked + standard_error, 0))
    # The limit is infinite if the spread overflows.
    is_within = is_finite & (ranked <= limit)
    return ValidationCurve(mean, standard_error, least, jnp.argmax(is_within))


class InformationCriteria(NamedTuple):
    """Akaike's, the Bayesian and the extended Bayesian criterion; smaller is better."""

    aic: jax.Array
    bic: jax.Array
    ebic: jax.Array

    def __repr__(self) -> str:
        return text_of(self, _criteria_lines, self.ebic, rank=1)


def _criteria_lines(criteria: InformationCriteria) -> tuple[str, dict[str, str]]:
    """The title and the rows of `print(criteria)`."""

    def least(scores: jax.Array) -> str:
        numbers = jax.device_get(scores).ravel().tolist()
        # A NaN is a fit that did not converge.
        score, index = min((x, i) for i, x in enumerate([*numbers, math.inf]) if x == x)
        if index == len(numbers):
            return "not finite"
        return f"{score:.4g}" + (f", least at index {index}" if scores.ndim else "")

    fits = f"{criteria.ebic.size} fit{'s' if criteria.ebic.ndim else ''}"
    return fits, {name: least(scores) for name, scores in criteria._asdict().items()}


def information_criteria(
    negative_log_likelihood: ArrayLike,
    nonzeros: ArrayLike,
    samples: ArrayLike,
    candidates: ArrayLike,
    weight: Number = 1.0,
    *,
    converged: ArrayLike | None = None,
) -> InformationCriteria:
    """AIC, BIC and extended BIC of fits, to choose a strength without validation data.

    With `f` the negative log-likelihood, `k` non-zeros among `p` candidates and `n`
    samples, AIC is `2 f + 2 k`, BIC `2 f + k log n` and EBIC
    `BIC + 2 weight log C(p, k)`. The number of non-zeros is an unbiased estimate of the
    degrees of freedom of the lasso, and a rough one for networks and for penalties that
    are not convex.

    Use AIC for prediction. To recover the right set, use BIC if there are few
    candidates, and EBIC if there are more than about the square root of the samples:
    there BIC tends to include wrong ones, however many samples there are. Then pass the
    likelihood of a refit without the penalty, since the shrinkage of L1 makes sparse
    models look worse than they are. With more parameters than samples the likelihood is
    unbounded: leave out fits with more than about half as many non-zeros as samples. A
    likelihood of NaN gives criteria of NaN, which `jnp.nanargmin` ignores and
    `jnp.argmin` does not.

    Args:
      negative_log_likelihood: the sum, not the mean, over all training samples. For
        least squares `rss / (2 variance)` if the variance of the noise is known, else
        `n / 2 * log(rss / n)`; for a classifier the summed cross-entropy.
      nonzeros: the number of parameters that are not zero.
      samples: the number of training samples, at least 1.
      candidates: the number of parameters to choose from.
      weight: of the last term of EBIC, one number in [0, 1]; 0 gives BIC, and 1 is for
        the largest numbers of candidates. The other arguments are numbers, or arrays
        that broadcast.
      converged: `Fit.converged` of the fits, of the shape of the likelihood: the
        criteria of a fit that did not converge are NaN.

    Raises:
      ValueError: more non-zeros than candidates, no samples, a weight outside [0, 1].

    Reference: Akaike 1974; Schwarz 1978; Chen and Chen 2008, eq. 1 (EBIC); Zou, Hastie
      and Tibshirani 2007 (degrees of freedom).

    >>> import jax.numpy as jnp
    >>> from jaxreg import model_selection
    >>> likelihood, nonzeros = jnp.array([90.0, 80.0]), jnp.array([1, 3])
    >>> scores = model_selection.information_criteria(likelihood, nonzeros, 100, 50)
    >>> for name, numbers in scores._asdict().items():
    ...     print(name, [round(float(number)) for number in numbers])
    aic [182, 166]
    bic [185, 174]
    ebic [192, 194]
    """
    name = "information_criteria"
    arrays = {
        "negative_log_likelihood": negative_log_likelihood,
        "nonzeros": nonzeros,
        "samples": samples,
        "candidates": candidates,
    }
    # As floats: the number of parameters of a large network overflows int32.
    f, k, n, p = (
        real_array(f"{name}: {key}", content, float) for key, content in arrays.items()
    )
    if is_known(lambda n: n < 1, n):
        raise ValueError(f"{name}: samples is {shown(samples)}; allowed: 1 or more")
    if is_known(lambda k, p: (k < 0) | (k > p), k, p):
        raise ValueError(
            f"{name}: nonzeros is {shown(nonzeros)} of {shown(candidates)} candidates; "
            "allowed: from 0 to the number of candidates"
        )
    check_number(f"{name}: weight", weight, UNIT_INTERVAL)
    if converged is not None:
        f = jnp.where(_flags(name, converged, f.shape), f, jnp.nan)
    # A difference of log factorials would lose log C(p, k) to rounding from p = 1e6 on.
    log_binomial = -jnp.log(p + 1) - jax.scipy.special.betaln(k + 1, p - k + 1)
    bic = 2 * f + k * jnp.log(n)
    return InformationCriteria(2 * f + 2 * k, bic, bic + 2 * weight * log_binomial)


def _flags(caller: str, converged: ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    """One boolean per fit."""
    flags = real_array(f"{caller}: converged", converged)
    if flags.shape != shape or flags.dtype != bool:
        raise ValueError(
            f"{caller}: converged has shape {flags.shape} and dtype {flags.dtype}; "
            f"allowed: booleans of shape {shape}, as Fit.converged gives"
        )
    return flags


class StabilitySelection(NamedTuple):
    """Frequency and stability per unit, the error bound, and the strengths used."""

    frequency: jax.Array
    is_stable: jax.Array
    bound: jax.Array
    strengths_used: jax.Array

    def __repr__(self) -> str:
        return text_of(self, _stability_lines, self.bound, rank=0)


def _stability_lines(selection: StabilitySelection) -> tuple[str, dict[str, str]]:
    """The title and the rows of `print(selection)`."""
    (stable,) = jax.device_get(selection.is_stable).nonzero()
    units = ", ".join(map(str, stable[:_MOST_UNITS]))
    more = len(stable) - _MOST_UNITS
    return f"{len(stable)} of {selection.is_stable.size} units are stable", {
        "units": (units or "none") + (f" and {more} more" if more > 0 else ""),
        "false positives": f"{float(selection.bound):.3g} expected at most",
        "strengths used": str(int(selection.strengths_used)),
    }


def stability_selection(
    units: ArrayLike,
    threshold: Number = 0.9,
    false_positives: Number = 1.0,
    *,
    converged: ArrayLike | None = None,
) -> StabilitySelection:
    """The units that are non-zero in most fits on half of the samples.

    The frequency of a unit is the share of fits in which it is not zero, at the
    strength where that share is largest. A unit is stable if its frequency reaches
    `threshold`. The expected number of stable units without effect is at most
    `q^2 / ((2 threshold - 1) p)`, with `p` units, of which an average fit selects `q`
    at one strength or more. Strengths are used in order while this bound is at most
    `false_positives`; the rest of the grid is ignored.

    The bound assumes that units without effect are exchangeable and that the fits
    select no worse than at random. Without these assumptions, but with complementary
    pairs, it holds for the stable units that a fit selects, at some strength, with a
    probability of at most `q / p`. `fold_masks(key, 2, samples)` gives two
    complementary half samples; 25 to 50 keys give 50 to 100 fits. Here `q` is an
    estimate, and so is the bound.

    Args:
      units: parameters, masks or norms of groups, shape (strengths, fits, units),
        strongest first; a unit that is not 0 is selected.
      threshold: above 0.5, at most 1.
      false_positives: the number allowed on average, above 0.
      converged: `Fit.converged`, shape (strengths, fits). A pair of half samples, fits
        0 and 1, 2 and 3 and so on, is left out at all strengths if one of its fits did
        not converge at one of them.

    Returns:
      `frequency` and `is_stable` of shape (units,), `bound`, and the number
      `strengths_used`, 0 if the first strength already selects too many.

    Raises:
      ValueError: `units` has another shape or a NaN, `threshold` is not in (0.5, 1],
        `false_positives` is not above 0, more than a tenth of the pairs did not
        converge, or the number of fits with `converged` is odd.

    Reference: Meinshausen and Buhlmann 2010, Theorem 1; Shah and Samworth 2013
      (complementary pairs).

    >>> import jax.numpy as jnp
    >>> from jaxreg import model_selection
    >>> units = jnp.array([[[1, 0, 0, 0], [1, 0, 0, 0]], [[1, 1, 0, 0], [1, 0, 0, 0]]])
    >>> result = model_selection.stability_selection(units)
    >>> print(result.is_stable, result.frequency, round(float(result.bound), 3))
    [ True False False False] [1.  0.5 0.  0. ] 0.703
    """
    units = real_array("stability_selection: units", units)
    _check_selection(units, threshold, false_positives)
    is_kept = jnp.ones(units.shape[1], bool)
    if converged is not None:
        is_kept = _pairs_that_converged(converged, units.shape[:2])
    selected, fits = (units != 0) & is_kept[None, :, None], jnp.sum(is_kept)
    so_far = jax.lax.cummax(selected.astype(jnp.int32), axis=0)
    average = jnp.sum(so_far, axis=(1, 2)) / fits
    bounds = average**2 / ((2 * threshold - 1) * selected.shape[2])
    # With slack for rounding: 30 of 50 fits reach a threshold of 0.6.
    is_used = bounds <= false_positives * (1 + 1e-5)
    hits = jnp.where(is_used[:, None], jnp.sum(selected, axis=1), 0)
    most = jnp.max(hits, axis=0)
    return StabilitySelection(
        frequency=most / fits,
        is_stable=most >= threshold * fits - 1e-3,
        bound=jnp.max(jnp.where(is_used, bounds, 0.0)),
        strengths_used=jnp.sum(is_used),
    )


def _pairs_that_converged(converged: ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    """A mask of the fits that converged at all strengths, as did their pair."""
    flags = _flags("stability_selection", converged, shape)
    if shape[1] % 2:
        raise ValueError(
            f"stability_selection: converged is of {shape[1]} fits; allowed: an even "
            "number, pairs of complementary half samples side by side"
        )
    pairs = jnp.all(flags.reshape(shape[0], -1, 2), axis=(0, 2))
    if is_known(lambda pairs: 10 * jnp.sum(~pairs) > len(pairs), pairs):
        raise ValueError(
            f"stability_selection: {int(jnp.sum(~pairs))} of {len(pairs)} pairs of "
            "fits did not converge; allowed: a tenth. Standardise the data, raise "
            "max_steps, or end the grid earlier"
        )
    return jnp.repeat(pairs, 2)


def _check_selection(
    units: jax.Array, threshold: Number, false_positives: Number
) -> None:
    if units.ndim != 3 or 0 in units.shape:
        raise ValueError(
            f"stability_selection: units has shape {units.shape}; allowed: "
            "(strengths, fits, units), none of them 0"
        )
    if is_known(jnp.isnan, units):
        raise ValueError(
            "stability_selection: units holds NaN, as of a fit that diverged; "
            "allowed: numbers"
        )
    is_share = is_number(threshold)
    if not is_share or is_known(lambda x: (x <= 0.5) | (x > 1) | (x != x), threshold):
        raise ValueError(
            f"stability_selection: threshold is {shown(threshold)}; allowed: above 0.5 "
            "and at most 1"
        )
    is_count = is_number(false_positives)
    if not is_count or is_known(lambda x: (x <= 0) | (x != x), false_positives):
        raise ValueError(
            f"stability_selection: false_positives is {shown(false_positives)}; "
            "allowed: a number above 0"
        )


def pareto_front(sparsity: ArrayLike, accuracy: ArrayLike) -> jax.Array:
    """The Pareto front: a mask of the models that no other model dominates.

    A model dominates another if it is as sparse and as accurate, and better in one.

    Args:
      sparsity: one number per model, shape (models,), larger is better.
      accuracy: as `sparsity`.

    Returns:
      Booleans of shape (models,). Equal models are on the front together; a model with
      NaN is not on it. `jnp.flatnonzero` gives the indices.

    Raises:
      ValueError: the arguments do not have one axis of the same length.

    >>> import jax.numpy as jnp
    >>> from jaxreg import model_selection
    >>> sparsity, accuracy = jnp.array([0.2, 0.5, 0.5, 0.9]), jnp.array([9, 9, 8, 7])
    >>> print(model_selection.pareto_front(sparsity, accuracy))
    [False  True False  True]
    """
    points = (
        real_array("pareto_front: sparsity", sparsity),
        real_array("pareto_front: accuracy", accuracy),
    )
    shapes = [point.shape for point in points]
    if points[0].ndim != 1 or shapes[0] != shapes[1]:
        raise ValueError(
            f"pareto_front: sparsity and accuracy have shapes {shapes[0]} and "
            f"{shapes[1]}; allowed: one axis each, of one length"
        )
    at_least = [point[:, None] >= point[None] for point in points]
    better = [point[:, None] > point[None] for point in points]
    dominates = at_least[0] & at_least[1] & (better[0] | better[1])
    is_nan = jnp.isnan(points[0]) | jnp.isnan(points[1])
    return ~is_nan & ~jnp.any(dominates, axis=0)
