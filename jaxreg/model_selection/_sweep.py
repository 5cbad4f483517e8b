"""Fits at every strength, and over folds and seeds: grid, folds and sweep."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.tree_util import PyTreeDef
from jax.typing import ArrayLike, DTypeLike

from jaxreg._core.groups import check_count
from jaxreg._core.messages import shown
from jaxreg._core.penalty import Number, Tree
from jaxreg._core.pytree import is_array
from jaxreg._core.ranges import (
    BETWEEN_0_AND_1,
    check_number,
    is_known,
    is_number,
    real_array,
)


def strength_grid(largest: Number, count: int, ratio: Number = 1e-3) -> jax.Array:
    """Strengths from `largest` down to `ratio * largest`, evenly spaced on a log scale.

    With `jaxreg.max_strength(penalty, grads).overall` as `largest` it is the grid of
    glmnet and scikit-learn (there `ratio` is `lambda.min.ratio` or `eps`): at its first
    strength all weights are zero, up to rounding. These strengths multiply the penalty,
    as in `jaxreg.scaled(penalty, strength)`. Runs inside jit.

    Args:
      largest: a number above 0. Choose it yourself where `max_strength` is infinite, as
        for L2, or 0, as for L0.
      count: the number of strengths, at least 2.
      ratio: the last strength over the first, between 0 and 1.

    Returns:
      An array of shape (count,), strongest first.

    Raises:
      ValueError: `largest` is 0, infinite or not one number, `count` is below 2, or
        `ratio` is outside (0, 1).

    Reference: Friedman, Hastie and Tibshirani 2010, Section 2.5.

    >>> import jax.numpy as jnp, jaxreg
    >>> from jaxreg import model_selection
    >>> largest = jaxreg.max_strength(jaxreg.L1(1.0), jnp.array([0.5, -2.0])).overall
    >>> grid = model_selection.strength_grid(largest, 3, 0.01)
    >>> print([round(float(s), 4) for s in grid])
    [2.0, 0.2, 0.02]
    """
    check_count("strength_grid: count", count, least=2)
    is_size = is_number(largest)
    if not is_size or is_known(lambda x: (x <= 0) | ~jnp.isfinite(x), largest):
        raise ValueError(
            f"strength_grid: largest is {shown(largest)}; allowed: a finite number "
            "above 0. max_strength is infinite for a penalty without a kink at 0 (L2) "
            "and 0 for one whose zero is always stationary (L0): choose the largest "
            "yourself"
        )
    check_number("strength_grid: ratio", ratio, BETWEEN_0_AND_1)
    # The first power is exactly 1, so that all weights are zero there.
    return largest * jnp.asarray(ratio) ** (jnp.arange(count) / (count - 1))


def fold_masks(
    key: jax.Array, folds: int, samples: int, labels: ArrayLike | None = None
) -> jax.Array:
    """Masks of the validation samples of each fold; each sample is in exactly one.

    With masks the fits of all folds have the same shapes and run under `vmap`: train on
    `~mask` by weights on the loss or by drawing batches from it. Fold sizes differ by
    at most one sample, and with `labels` so do the counts of each label (stratified
    folds). Compute the masks once, so that all strengths and all methods are compared
    on the same folds.

    Two folds are complementary halves of the samples, as `stability_selection` needs
    them; call it with several keys.

    Args:
      key: of `jax.random`.
      folds: the number of folds, at least 2 and at most `samples`.
      samples: the number of samples.
      labels: a class per sample, shape (samples,): numbers that are equal within a
        class and differ between classes, in 32 bits unless JAX has 64.

    Returns:
      Booleans of shape (folds, samples), True for validation.

    Raises:
      ValueError: `folds` is below 2 or above `samples`, or `labels` has another shape.

    >>> import jax
    >>> from jaxreg import model_selection
    >>> masks = model_selection.fold_masks(jax.random.key(0), folds=5, samples=12)
    >>> print(masks.sum(axis=0), masks.sum(axis=1))
    [1 1 1 1 1 1 1 1 1 1 1 1] [3 3 2 2 2]
    """
    if not (isinstance(key, jax.Array) or is_array(key)):
        raise TypeError(
            f"fold_masks: key is {shown(key)}; allowed: a key, as jax.random.key(0)"
        )
    check_count("fold_masks: folds", folds, least=2)
    check_count("fold_masks: samples", samples, least=2)
    if folds > samples:
        raise ValueError(
            f"fold_masks: folds is {folds} and samples {samples}; allowed: at most one "
            "fold per sample"
        )
    classes = jnp.zeros(samples)
    if labels is not None:
        classes = real_array("fold_masks: labels", labels)
    if classes.shape != (samples,):
        raise ValueError(
            f"fold_masks: labels has shape {classes.shape}; allowed: ({samples},), one "
            "class per sample"
        )
    # Samples are dealt out like cards, class by class.
    order = jnp.lexsort((jax.random.permutation(key, samples), classes))
    return (jnp.argsort(order) % folds)[None] == jnp.arange(folds)[:, None]


def sweep(
    fit: Callable[..., tuple[Tree, Tree]],
    strengths: ArrayLike,
    *axes: Tree,
    start: Callable[..., Tree],
    warm_start: bool = False,
) -> Tree:
    """Runs `fit` at each strength and each point of each axis (folds, seeds).

    `fit(strength, params, *points)` trains from `params` and returns `(params,
    result)`, like the body of a scan; `start(*points)` returns the parameters to start
    from. A point is one element of an axis: a fold's mask, a key. Results are stacked.

    - By default each fit starts from `start`, all at once under `vmap`. Use this for
      networks: fits are independent of each other, and of the rest of the grid.
    - With `warm_start` each fit starts from the result of the one before it, in the
      order of `strengths`, and only the axes run under `vmap`. Convex problems solved
      to a tolerance, from strong to weak, have the same solutions after fewer
      iterations. For networks that order is wrong: weights that the strongest strength
      has zeroed have no gradient and do not return. Go from weak to strong there, or
      start each fit anew.

    Call it inside `jax.jit`, with the data as arguments. Each fit is traced once; all
    fits that run at once are in memory together.

    Args:
      fit: a function that jax can trace. To get the parameters, put them in `result`.
      strengths: shape (strengths,), numbers >= 0.
      axes: arrays, or trees of arrays, with one entry per point along their first axis.
      start: a function of a point of each axis.
      warm_start: see above.

    Returns:
      `result` with leading axes (strengths, points of the first axis, ...).

    Raises:
      TypeError: `fit` or `start` is not a function, or `fit` does not return a pair.
      ValueError: `strengths` is not one axis of numbers >= 0, an axis has no entries or
        leaves of several lengths, or with `warm_start` the parameters from `fit` differ
        from those of `start` in structure, shapes or dtypes.

    Reference: Friedman, Hastie and Tibshirani 2010 (warm starts down the grid).

    >>> import jax.numpy as jnp, jaxreg
    >>> from jaxreg import model_selection
    >>> def fit(strength, params, shift):
    ...     params = jaxreg.L1(strength).prox(jnp.array([1.0, 3.0]) + shift, 1.0)
    ...     return params, jnp.sum(params != 0)
    >>> strengths, shifts = jnp.array([3.5, 2.0, 0.5]), jnp.array([0.0, 1.0])
    >>> start = lambda shift: jnp.zeros(2)
    >>> print(model_selection.sweep(fit, strengths, shifts, start=start))
    [[0 1]
     [1 1]
     [2 2]]
    """
    _check_functions(fit=fit, start=start)
    strengths = checked_strengths("sweep", strengths)
    for number, axis in enumerate(axes):
        _check_axis(number, axis)

    def fit_all(*points: Tree) -> Tree:
        def checked_fit(params: Tree, strength: jax.Array) -> tuple[Tree, Tree]:
            return _checked_pair(fit(strength, params, *points))

        def step(params: Tree, strength: jax.Array) -> tuple[Tree, Tree]:
            fitted, result = checked_fit(params, strength)
            _check_same(params, fitted)
            return fitted, result

        params = jax.tree.map(jnp.asarray, start(*points))
        if warm_start:
            return jax.lax.scan(step, params, strengths)[1]
        return jax.vmap(lambda strength: checked_fit(params, strength)[1])(strengths)

    # Each vmap inserts its axis behind that of the strengths: the first comes last.
    for mapped in reversed(range(len(axes))):
        in_axes = [0 if number == mapped else None for number in range(len(axes))]
        fit_all = jax.vmap(fit_all, in_axes=in_axes, out_axes=1)
    return fit_all(*axes)


def _check_functions(**functions: object) -> None:
    for name, function in functions.items():
        if not callable(function):
            raise TypeError(
                f"sweep: {name} is {type(function).__name__}; allowed: a function, as "
                "in sweep(fit, strengths, folds, start=lambda fold: params)"
            )


def checked_strengths(caller: str, strengths: ArrayLike) -> jax.Array:
    """The strengths as an array; raises if they are not one axis of numbers >= 0."""
    strengths = real_array(f"{caller}: strengths", strengths)
    if strengths.ndim != 1 or not len(strengths):
        raise ValueError(
            f"{caller}: strengths has shape {strengths.shape}; allowed: one axis with "
            "at least one strength"
        )
    if is_known(lambda x: ~(jnp.isfinite(x) & (x >= 0)), strengths):
        raise ValueError(
            f"{caller}: strengths holds {shown(strengths)}; allowed: finite numbers "
            ">= 0"
        )
    return strengths


def _check_axis(number: int, axis: Tree) -> None:
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(axis)]
    lengths = {shape[0] if shape else 0 for shape in shapes}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            f"sweep: axis {number} has leaves of shapes {shapes}; allowed: arrays with "
            "one common length of at least 1 along their first axis"
        )


def _checked_pair(pair: tuple[Tree, Tree]) -> tuple[Tree, Tree]:
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise TypeError(
            f"sweep: fit gave {type(pair).__name__}; allowed: a pair (params, result)"
        )
    return pair


def _check_same(before: Tree, after: Tree) -> None:
    """Raises a ValueError if structure, shapes or dtypes of parameters differ."""

    def kind(tree: Tree) -> tuple[PyTreeDef, list[tuple[tuple[int, ...], DTypeLike]]]:
        leaves, treedef = jax.tree.flatten(tree)
        return treedef, [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]

    if kind(before) != kind(after):
        raise ValueError(
            f"sweep: fit gave params {jax.tree.map(jax.typeof, after)} where start "
            f"made {jax.tree.map(jax.typeof, before)}; allowed with warm_start: the "
            "same structure, shapes and dtypes"
        )
