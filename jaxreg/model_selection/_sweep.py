"""One solution per strength, over folds and seeds too: the grid, the folds, the fits.

What a sweep gives is chosen from in `jaxreg.selection`.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxreg._core.checks import check_number, is_known, is_number
from jaxreg._core.penalty import Tree


def strength_grid(largest: Any, count: int, ratio: Any = 1e-3) -> jax.Array:
    """Strengths from `largest` down to `ratio * largest`, evenly spaced on a log scale.

    With `jaxreg.max_strength(penalty, grads).overall` as `largest` it is the grid of
    glmnet and scikit-learn (there `ratio` is `lambda.min.ratio` or `eps`): at its first
    strength all weights are zero, up to rounding. These are factors on the penalty:
    `jaxreg.scaled(penalty, strength)` has them. Runs inside jit.

    Args:
      largest: a number above 0; where `max_strength` is infinite, as for L2, or 0, as
        for L0, one of your own.
      count: how many, at least 2.
      ratio: the last over the first, between 0 and 1.

    Returns:
      An array of shape (count,), strongest first.

    Raises:
      ValueError: `largest` is 0, infinite or not one number, `count` below 2,
        `ratio` outside (0, 1).

    Reference: Friedman, Hastie and Tibshirani 2010, Section 2.5.

    >>> import jax.numpy as jnp, jaxreg
    >>> from jaxreg import model_selection
    >>> largest = jaxreg.max_strength(jaxreg.L1(1.0), jnp.array([0.5, -2.0])).overall
    >>> grid = model_selection.strength_grid(largest, 3, 0.01)
    >>> print([round(float(s), 4) for s in grid])
    [2.0, 0.2, 0.02]
    """
    _check_count("strength_grid: count", count)
    is_size = is_number(largest)
    if not is_size or is_known(lambda x: (x <= 0) | ~jnp.isfinite(x), largest):
        raise ValueError(
            f"strength_grid: largest is {largest}; allowed: a finite number above 0. "
            "max_strength is infinite for a penalty without a kink at 0 (L2) and 0 for "
            "one whose zero is always stationary (L0): choose the largest yourself"
        )
    check_number("strength_grid: ratio", ratio)
    if is_known(lambda x: (x <= 0) | (x >= 1), ratio):
        raise ValueError(
            f"strength_grid: ratio is {ratio}; allowed: a number between 0 and 1, the "
            "weakest strength over the strongest"
        )
    # Exactly 1 at the first, so that all weights are zero there.
    return largest * jnp.asarray(ratio) ** (jnp.arange(count) / (count - 1))


def fold_masks(
    key: jax.Array, folds: int, samples: int, labels: Any | None = None
) -> jax.Array:
    """Which samples are for validation in each fold: each sample in exactly one.

    As masks, fits of all folds have one shape and run under `vmap`: train on `~mask` by
    weights on the loss or by drawing batches from it. Fold sizes differ by at most one
    sample; with `labels`, so do the counts of each label (stratified folds). Make them
    once, so that all strengths, and all methods, are compared on the same folds.

    Two folds are the two halves of the samples: those of several keys are the half
    samples of `stability_selection`, in complementary pairs.

    Args:
      key: of `jax.random`.
      folds: how many, at least 2 and at most `samples`.
      samples: how many.
      labels: a class per sample, shape (samples,); any numbers that are equal within
        a class, and differ between classes in 32 bits unless JAX has 64.

    Returns:
      Booleans of shape (folds, samples), True for validation.

    Raises:
      ValueError: `folds` below 2 or above `samples`; `labels` of another shape.

    >>> import jax
    >>> from jaxreg import model_selection
    >>> masks = model_selection.fold_masks(jax.random.key(0), folds=5, samples=12)
    >>> print(masks.sum(axis=0), masks.sum(axis=1))
    [1 1 1 1 1 1 1 1 1 1 1 1] [3 3 2 2 2]
    """
    _check_count("fold_masks: folds", folds)
    _check_count("fold_masks: samples", samples)
    if folds > samples:
        raise ValueError(
            f"fold_masks: folds is {folds} and samples {samples}; allowed: at most one "
            "fold per sample"
        )
    classes = jnp.zeros(samples) if labels is None else jnp.asarray(labels)
    if classes.shape != (samples,):
        raise ValueError(
            f"fold_masks: labels has shape {classes.shape}; allowed: ({samples},), one "
            "class per sample"
        )
    # Dealt out like cards, class by class.
    order = jnp.lexsort((jax.random.permutation(key, samples), classes))
    return jnp.argsort(order) % folds == jnp.arange(folds)[:, None]


def sweep(
    fit: Callable[..., tuple[Tree, Any]],
    strengths: Any,
    *axes: Any,
    start: Callable[..., Tree],
    warm_start: bool = False,
) -> Any:
    """What `fit` finds at each strength, for each point of each axis (folds, seeds).

    `fit(strength, params, *points)` trains from `params` and gives `(params, result)`,
    like the body of a scan; `start(*points)` makes the parameters to begin from. A
    point is one element of an axis: a fold's mask, a key. The results come stacked.

    - By default each fit begins at `start`, all at once under `vmap`. This is the way
      for networks: fits are independent of each other, and of the rest of the grid.
    - With `warm_start` each fit begins where the one before it ended, in the order of
      `strengths`, and the axes alone run under `vmap`. For convex problems solved to a
      tolerance, from strong to weak, it finds the same solutions with fewer iterations.
      For networks that order is wrong: what the strongest strength has zeroed has no
      gradient and does not return. There go from weak to strong, or start each fit
      anew.

    Call it inside `jax.jit`, with the data as arguments. Each fit is traced once; all
    of those that run at once are held in memory together.

    Args:
      fit: a function that jax can trace; put the parameters into `result` as well if
        they are wanted.
      strengths: shape (strengths,), numbers >= 0.
      axes: arrays, or trees of arrays, with one entry per point along their first axis.
      start: a function of a point of each axis.
      warm_start: see above.

    Returns:
      `result` with axes (strengths, points of the first axis, ...) put before its own.

    Raises:
      TypeError: `fit` or `start` is no function, or `fit` does not give a pair.
      ValueError: `strengths` is not one axis of numbers >= 0, an axis has no entries or
        leaves of several lengths, or a warm start meets parameters of another kind.

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
    strengths = jnp.asarray(strengths)
    _check_strengths(strengths)
    for number, axis in enumerate(axes):
        _check_axis(number, axis)

    def along(*points: Any) -> Any:
        def one(params: Tree, strength: jax.Array) -> tuple[Tree, Any]:
            return _pair(fit(strength, params, *points))

        def step(params: Tree, strength: jax.Array) -> tuple[Tree, Any]:
            after, result = one(params, strength)
            _check_same(params, after)
            return after, result

        params = jax.tree.map(jnp.asarray, start(*points))
        if warm_start:
            return jax.lax.scan(step, params, strengths)[1]
        return jax.vmap(lambda strength: one(params, strength)[1])(strengths)

    # Each level puts its axis behind that of the strengths: the last axis is innermost.
    for place in reversed(range(len(axes))):
        mapped = [0 if number == place else None for number in range(len(axes))]
        along = jax.vmap(along, in_axes=mapped, out_axes=1)
    return along(*axes)


def _check_count(name: str, count: Any) -> None:
    if not isinstance(count, numbers.Integral) or isinstance(count, bool) or count < 2:
        raise ValueError(f"{name} is {count!r}; allowed: an int of at least 2")


def _check_functions(**functions: Any) -> None:
    for name, given in functions.items():
        if not callable(given):
            raise TypeError(
                f"sweep: {name} is {type(given).__name__}; allowed: a function, as in "
                "sweep(fit, strengths, folds, start=lambda fold: params)"
            )


def _check_strengths(strengths: jax.Array) -> None:
    if strengths.ndim != 1 or not len(strengths):
        raise ValueError(
            f"sweep: strengths has shape {strengths.shape}; allowed: one axis with at "
            "least one strength"
        )
    if is_known(lambda x: ~(jnp.isfinite(x) & (x >= 0)), strengths):
        raise ValueError(
            f"sweep: strengths holds {strengths}; allowed: finite numbers >= 0"
        )


def _check_axis(number: int, axis: Any) -> None:
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(axis)]
    lengths = {shape[0] if shape else 0 for shape in shapes}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            f"sweep: axis {number} has leaves of shapes {shapes}; allowed: arrays with "
            "one common length of at least 1 along their first axis"
        )


def _pair(found: Any) -> tuple[Tree, Any]:
    if not isinstance(found, tuple) or len(found) != 2:
        raise TypeError(
            f"sweep: fit gave {type(found).__name__}; allowed: a pair (params, result)"
        )
    return found


def _check_same(before: Tree, after: Tree) -> None:
    """Refuses to begin a fit from parameters of another kind than `start` makes."""

    def kind(tree: Tree) -> Any:
        leaves, treedef = jax.tree.flatten(tree)
        return treedef, [(jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves]

    if kind(before) != kind(after):
        raise ValueError(
            f"sweep: fit gave params {jax.tree.map(jax.typeof, after)} where start "
            f"made {jax.tree.map(jax.typeof, before)}; allowed with warm_start: the "
            "same structure, shapes and dtypes"
        )
