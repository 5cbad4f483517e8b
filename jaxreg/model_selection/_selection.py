"""Choosing from a sweep: a strength, a set of units, or a front. Pure, inside jit."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxreg._core.checks import check_number, is_known, is_number


class ValidationCurve(NamedTuple):
    """Mean and standard error per strength, and the places of two choices."""

    mean: jax.Array
    standard_error: jax.Array
    least: jax.Array
    one_standard_error: jax.Array


def validation_curve(errors: Any) -> ValidationCurve:
    """The mean error at each strength, and the strengths that it speaks for.

    `least` is the place of the smallest mean error, `one_standard_error` that of the
    strongest strength whose mean error is within one standard error of it: the sparsest
    model that the data do not tell from the best. A strength with an error that is NaN
    is not chosen. Every fold counts alike, as in scikit-learn (glmnet weighs folds by
    their samples; those of `fold_masks` differ by one at most). The standard error, of
    the mean over folds, takes folds as independent; they share training samples, so it
    is a rough guide. Half precision is averaged in float32.

    Args:
      errors: of validation samples, shape (strengths, folds) or (strengths, seeds),
        strongest first, smaller is better, two folds or more.

    Raises:
      ValueError: not of that shape, or no strength has errors that are all finite.

    Reference: Breiman, Friedman, Olshen and Stone 1984, Section 3.4.3; Hastie,
      Tibshirani and Friedman 2009, Section 7.10.

    >>> import jax.numpy as jnp
    >>> from jaxreg import model_selection
    >>> errors = jnp.array([[0.9, 0.8], [0.5, 0.3], [0.4, 0.3], [0.5, 0.4]])
    >>> curve = model_selection.validation_curve(errors)
    >>> print(int(curve.least), int(curve.one_standard_error))
    2 1
    """
    errors = jnp.asarray(errors)
    if errors.ndim != 2 or not errors.shape[0] or errors.shape[1] < 2:
        raise ValueError(
            f"validation_curve: errors has shape {errors.shape}; allowed: (strengths, "
            "folds) with at least one strength and two folds"
        )
    errors = errors.astype(jnp.promote_types(errors.dtype, jnp.float32))
    mean = jnp.mean(errors, axis=1)
    if is_known(lambda x: ~jnp.any(jnp.isfinite(x)), mean):
        raise ValueError(
            "validation_curve: errors has a NaN or an infinity at every strength; "
            "allowed: finite numbers at one strength or more. Lower the learning rate, "
            "or end the grid earlier"
        )
    spread = jnp.std(errors, axis=1, ddof=1) / errors.shape[1] ** 0.5
    ranked = jnp.where(jnp.isnan(mean), jnp.inf, mean)
    least = jnp.argmin(ranked)
    # Without an index, which an axis that is sharded explicitly does not take.
    is_least = jnp.arange(len(ranked)) == least
    limit = jnp.sum(jnp.where(is_least, ranked + spread, 0))
    return ValidationCurve(mean, spread, least, jnp.argmax(ranked <= limit))


class InformationCriteria(NamedTuple):
    """Three criteria, smaller is better."""

    aic: jax.Array
    bic: jax.Array
    ebic: jax.Array


def information_criteria(
    negative_log_likelihood: Any,
    nonzeros: Any,
    samples: Any,
    candidates: Any,
    weight: Any = 1.0,
) -> InformationCriteria:
    """AIC, BIC and extended BIC of fits, to choose a strength without validation data.

    With `f` the negative log-likelihood, `k` the non-zeros of `p` candidates and `n`
    samples: AIC is `2 f + 2 k`, BIC `2 f + k log n`, EBIC `BIC + 2 weight log C(p, k)`.
    The number of non-zeros is an unbiased estimate of the degrees of freedom of the
    lasso; for networks and for penalties that are not convex it is a rough one.

    AIC is for prediction, BIC for the right set among few candidates, EBIC for it among
    more than about the square root of the samples, where BIC tends to take in wrong
    ones however many samples there are. For a set, give the likelihood of a refit
    without the penalty: the shrinkage of L1 makes sparse models look worse than they
    are. With more parameters than samples the likelihood has no bound: leave out fits
    with more than about half as many non-zeros as samples. A likelihood that is NaN
    makes criteria that are NaN: `jnp.nanargmin` passes them by, `jnp.argmin` does not.

    Args:
      negative_log_likelihood: of all training samples, a sum and not a mean. For least
        squares `rss / (2 variance)` if the variance of the noise is known, else
        `n / 2 * log(rss / n)`; for a classifier the summed cross-entropy.
      nonzeros: how many parameters are not zero.
      samples: the training samples, at least 1.
      candidates: how many parameters there are to choose from.
      weight: of the last term, one number in [0, 1]; 0 is BIC, and 1 is for the most
        candidates. The others are numbers, or arrays that broadcast.

    Raises:
      ValueError: more non-zeros than candidates, no samples, a weight outside [0, 1].

    Reference: Akaike 1974; Schwarz 1978; Chen and Chen 2008, eq. 1 (EBIC); Zou, Hastie
      and Tibshirani 2007 (degrees of freedom).

    >>> import jax.numpy as jnp
    >>> from jaxreg import model_selection
    >>> likelihood, nonzeros = jnp.array([90.0, 80.0]), jnp.array([1, 3])
    >>> found = model_selection.information_criteria(likelihood, nonzeros, 100, 50)
    >>> for name, numbers in found._asdict().items():
    ...     print(name, [round(float(number)) for number in numbers])
    aic [182, 166]
    bic [185, 174]
    ebic [192, 194]
    """
    name = "information_criteria"
    if is_known(lambda n: n < 1, samples):
        raise ValueError(f"{name}: samples is {samples}; allowed: 1 or more")
    if is_known(_is_no_count, nonzeros, candidates):
        raise ValueError(
            f"{name}: nonzeros is {nonzeros} of {candidates} candidates; allowed: "
            "from 0 to the number of candidates"
        )
    check_number(f"{name}: weight", weight)
    if is_known(lambda x: x > 1, weight):
        raise ValueError(f"{name}: weight is {weight}; allowed: a number from 0 to 1")
    f, k, n, p = (
        jnp.asarray(x, float)
        for x in (negative_log_likelihood, nonzeros, samples, candidates)
    )
    # log C(p, k); a difference of log factorials loses it to rounding from p = 1e6 on.
    ways = -jnp.log(p + 1) - jax.scipy.special.betaln(k + 1, p - k + 1)
    bic = 2 * f + k * jnp.log(n)
    return InformationCriteria(2 * f + 2 * k, bic, bic + 2 * weight * ways)


def _is_no_count(nonzeros: Any, candidates: Any) -> Any:
    # As floats: an int32 does not hold the parameters of a large network.
    k, p = jnp.asarray(nonzeros, float), jnp.asarray(candidates, float)
    return (k < 0) | (k > p)


class StabilitySelection(NamedTuple):
    """Per unit its frequency and whether it is stable; the bound and what it is for."""

    frequency: jax.Array
    is_stable: jax.Array
    bound: jax.Array
    strengths_used: jax.Array


def stability_selection(
    units: Any, threshold: Any = 0.9, false_positives: Any = 1.0
) -> StabilitySelection:
    """The units that are non-zero in most fits on half of the samples.

    A unit's frequency is its share of fits in which it is not zero, at the strength
    where that is largest; it is stable if that reaches `threshold`. The expected number
    of stable units that have no effect is at most `q^2 / ((2 threshold - 1) p)`, with
    `p` units and `q` of them non-zero at some strength in an average fit. Strengths are
    used from the first on, as long as this bound stays at `false_positives` or below:
    the rest of the grid may go as far down as it likes.

    The bound takes for granted that units without effect are alike, and that the fits
    select no worse than at random. Without that it holds, of complementary pairs, for
    the stable units that a fit selects, at some strength, with a probability of at most
    `q / p`. Half samples come from `fold_masks(key, 2, samples)` with 25 to 50 keys,
    which gives 50 to 100 fits in such pairs. Here `q` is an estimate, and so is the
    bound.

    Args:
      units: parameters, or masks, or norms of groups, shape (strengths, fits, units),
        strongest first; what is not 0 is selected.
      threshold: above 0.5, at most 1.
      false_positives: how many are allowed on average, above 0.

    Returns:
      `frequency` and `is_stable` of shape (units,); `bound`; and `strengths_used`, the
      number of strengths, 0 if already the first one selects too many.

    Raises:
      ValueError: `units` of another shape or NaN, `threshold` not a number in (0.5, 1],
        `false_positives` not one above 0.

    Reference: Meinshausen and Buhlmann 2010, Theorem 1; Shah and Samworth 2013
      (complementary pairs).

    >>> import jax.numpy as jnp
    >>> from jaxreg import model_selection
    >>> units = jnp.array([[[1, 0, 0, 0], [1, 0, 0, 0]], [[1, 1, 0, 0], [1, 0, 0, 0]]])
    >>> found = model_selection.stability_selection(units)
    >>> print(found.is_stable, found.frequency, round(float(found.bound), 3))
    [ True False False False] [1.  0.5 0.  0. ] 0.703
    """
    units = jnp.asarray(units)
    _check_selection(units, threshold, false_positives)
    selected = units != 0
    so_far = jax.lax.cummax(selected.astype(jnp.int32), axis=0)
    average = jnp.mean(jnp.sum(so_far, axis=2), axis=1)
    bounds = average**2 / ((2 * threshold - 1) * selected.shape[2])
    # What is equal but for rounding is within: 30 of 50 fits are a share of 0.6.
    is_used = bounds <= false_positives * (1 + 1e-5)
    hits = jnp.where(is_used[:, None], jnp.sum(selected, axis=1), 0)
    most, fits = jnp.max(hits, axis=0), selected.shape[1]
    return StabilitySelection(
        frequency=most / fits,
        is_stable=most >= threshold * fits - 1e-3,
        bound=jnp.max(jnp.where(is_used, bounds, 0.0)),
        strengths_used=jnp.sum(is_used),
    )


def _check_selection(units: jax.Array, threshold: Any, false_positives: Any) -> None:
    if units.ndim != 3 or 0 in units.shape:
        raise ValueError(
            f"stability_selection: units has shape {units.shape}; allowed: "
            "(strengths, fits, units), none of them 0"
        )
    if is_known(jnp.isnan, units):
        raise ValueError(
            "stability_selection: units holds NaN, as of a fit that diverged; allowed: "
            "numbers"
        )
    is_share = is_number(threshold)
    if not is_share or is_known(lambda x: (x <= 0.5) | (x > 1) | (x != x), threshold):
        raise ValueError(
            f"stability_selection: threshold is {threshold}; allowed: above 0.5 and at "
            "most 1"
        )
    is_count = is_number(false_positives)
    if not is_count or is_known(lambda x: (x <= 0) | (x != x), false_positives):
        raise ValueError(
            f"stability_selection: false_positives is {false_positives}; allowed: a "
            "number above 0"
        )


def pareto_front(sparsity: Any, accuracy: Any) -> jax.Array:
    """Which models no other beats: none is as sparse and as accurate, and more in one.

    Args:
      sparsity, accuracy: one number per model, shape (models,), larger is better.

    Returns:
      Booleans of shape (models,); equal models are on the front together, and NaN is
      never on it. `jnp.flatnonzero` of it gives the places.

    Raises:
      ValueError: not one axis, or two lengths.

    >>> import jax.numpy as jnp
    >>> from jaxreg import model_selection
    >>> sparsity, accuracy = jnp.array([0.2, 0.5, 0.5, 0.9]), jnp.array([9, 9, 8, 7])
    >>> print(model_selection.pareto_front(sparsity, accuracy))
    [False  True False  True]
    """
    points = jnp.asarray(sparsity), jnp.asarray(accuracy)
    shapes = [point.shape for point in points]
    if points[0].ndim != 1 or shapes[0] != shapes[1]:
        raise ValueError(
            f"pareto_front: sparsity and accuracy have shapes {shapes[0]} and "
            f"{shapes[1]}; allowed: one axis each, of one length"
        )
    at_least = [point[:, None] >= point for point in points]
    more = [point[:, None] > point for point in points]
    beats = at_least[0] & at_least[1] & (more[0] | more[1])
    is_number = ~(jnp.isnan(points[0]) | jnp.isnan(points[1]))
    return is_number & ~jnp.any(beats, axis=0)
