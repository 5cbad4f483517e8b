"""Bad sweeps: grids, folds and results that no strength can be chosen from.

Each row is a test and a line of docs/bad_input.md.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import jaxreg
from tests.system.bad_input.inputs import AT_CALL, Row, refused

NAN = float("nan")


def row(
    given: str, error: type[Exception], message: str, name: str, call: Callable[[], Any]
) -> Row:
    return refused(
        given, error, f"{name}: {message}", lambda way: call(), (name,), AT_CALL
    )


def grid(given: str, message: str, *arguments: Any) -> Row:
    def call() -> Any:
        return jaxreg.model_selection.strength_grid(*arguments)

    return row(given, ValueError, message, "strength_grid", call)


def folds(given: str, message: str, *arguments: Any) -> Row:
    def call() -> Any:
        return jaxreg.model_selection.fold_masks(jax.random.key(0), *arguments)

    return row(given, ValueError, message, "fold_masks", call)


def fit(strength: Any, params: Any, *points: Any) -> Any:
    return params, strength


def swept(
    given: str,
    message: str,
    *arguments: Any,
    error: type[Exception] = ValueError,
    start: Any = 0.0,
) -> Row:
    def call() -> Any:
        return jaxreg.model_selection.sweep(
            *arguments, start=lambda *points: start, warm_start=True
        )

    return row(given, error, message, "sweep", call)


def chosen(name: str, given: str, message: str, *arguments: Any) -> Row:
    def call() -> Any:
        return getattr(jaxreg.model_selection, name)(*arguments)

    return row(given, ValueError, message, name, call)


LARGEST = "allowed: a finite number above 0. max_strength is infinite for a penalty "
LARGEST += "without a kink at 0 (L2) and 0 for one whose zero is always stationary (L0)"
ONE_AXIS = "allowed: one axis with at least one strength"
LENGTH = "allowed: arrays with one common length of at least 1 along their first axis"
TWO_FOLDS = "allowed: (strengths, folds) with at least one strength and two folds"
NO_NUMBERS = "errors has a NaN or an infinity at every strength; allowed: finite "
NO_NUMBERS += "numbers at one strength or more"
UNITS = "allowed: (strengths, fits, units), none of them 0"
ONE_LENGTH = "allowed: one axis each, of one length"

SWEEP_ROWS = [
    grid("a largest strength of infinity", f"largest is inf; {LARGEST}", jnp.inf, 5),
    grid("a largest strength of 0", f"largest is 0.0; {LARGEST}", 0.0, 5),
    grid("a largest strength of NaN", f"largest is nan; {LARGEST}", NAN, 5),
    grid(
        "two largest strengths",
        f"largest is ...; {LARGEST}",
        jnp.ones(2),
        2,
    ),
    folds(
        "more folds than samples",
        "folds is 10 and samples 9; allowed: at most one fold per sample",
        10,
        9,
    ),
    folds(
        "labels of another length",
        "labels has shape (8,); allowed: (9,), one class per sample",
        3,
        9,
        jnp.zeros(8),
    ),
    swept("one number as strengths", f"strengths has shape (); {ONE_AXIS}", fit, 0.1),
    swept("no strengths", f"strengths has shape (0,); {ONE_AXIS}", fit, []),
    swept(
        "a negative strength in a grid",
        "strengths holds ...; allowed: finite numbers >= 0",
        fit,
        jnp.array([0.1, -0.1]),
    ),
    swept(
        "a NaN in a grid",
        "strengths holds ...; allowed: finite numbers >= 0",
        fit,
        jnp.array([0.1, NAN]),
    ),
    swept(
        "an axis that is one number",
        f"axis 0 has leaves of shapes [()]; {LENGTH}",
        fit,
        jnp.ones(2),
        3.0,
    ),
    swept(
        "an axis whose leaves differ in length",
        f"axis 0 has leaves of shapes [(2,), (3,)]; {LENGTH}",
        fit,
        jnp.ones(2),
        (jnp.ones(2), jnp.ones(3)),
    ),
    swept(
        "parameters in place of `fit`",
        "fit is float; allowed: a function, as in sweep(fit, strengths, folds, "
        "start=lambda fold: params)",
        0.0,
        jnp.ones(2),
        error=TypeError,
    ),
    swept(
        "a `fit` that gives no pair",
        "fit gave float; allowed: a pair (params, result)",
        lambda strength, params: 0.0,
        jnp.ones(2),
        error=TypeError,
    ),
    swept(
        "a warm start whose `fit` gives parameters of another shape",
        "fit gave params ... where start made ...; allowed with warm_start: the same "
        "structure, shapes and dtypes",
        lambda strength, params: (jnp.ones(3), strength),
        jnp.ones(2),
    ),
    chosen(
        "validation_curve",
        "errors of one axis",
        f"errors has shape (3,); {TWO_FOLDS}",
        jnp.ones(3),
    ),
    chosen(
        "validation_curve",
        "errors of one fold",
        f"errors has shape (3, 1); {TWO_FOLDS}",
        jnp.ones((3, 1)),
    ),
    chosen(
        "validation_curve",
        "a NaN at every strength",
        NO_NUMBERS,
        jnp.array([[NAN, 1.0], [1.0, NAN]]),
    ),
    chosen(
        "validation_curve",
        "an infinity at every strength",
        NO_NUMBERS,
        jnp.array([[jnp.inf, 1.0], [1.0, jnp.inf]]),
    ),
    chosen(
        "information_criteria",
        "more non-zeros than candidates",
        "nonzeros is 4 of 3 candidates; allowed: from 0 to the number of candidates",
        1.0,
        4,
        10,
        3,
    ),
    chosen(
        "information_criteria",
        "no samples",
        "samples is 0; allowed: 1 or more",
        1,
        1,
        0,
        3,
    ),
    chosen(
        "stability_selection",
        "units of two axes",
        f"units has shape (3, 4); {UNITS}",
        jnp.ones((3, 4)),
    ),
    chosen(
        "stability_selection",
        "a threshold of one half",
        "threshold is 0.5; allowed: above 0.5 and at most 1",
        jnp.ones((2, 3, 4)),
        0.5,
    ),
    chosen(
        "stability_selection",
        "no false positives allowed",
        "false_positives is 0; allowed: a number above 0",
        jnp.ones((2, 3, 4)),
        0.9,
        0,
    ),
    chosen(
        "stability_selection",
        "a threshold per strength",
        "threshold is ...; allowed: above 0.5 and at most 1",
        jnp.ones((2, 3, 4)),
        jnp.array([0.9, 0.8]),
    ),
    chosen(
        "stability_selection",
        "false positives allowed per strength",
        "false_positives is ...; allowed: a number above 0",
        *(jnp.ones((2, 3, 4)), 0.9, jnp.ones(2)),
    ),
    chosen(
        "stability_selection",
        "units that are NaN",
        "units holds NaN, as of a fit that diverged; allowed: numbers",
        jnp.full((2, 3, 4), NAN),
    ),
    chosen(
        "pareto_front",
        "numbers of two lengths",
        f"sparsity and accuracy have shapes (2,) and (3,); {ONE_LENGTH}",
        jnp.ones(2),
        jnp.ones(3),
    ),
]
