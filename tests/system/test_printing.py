"""Results print as a few lines: by `print`, in a console, under jit and vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxreg
from jaxreg._core.pytree import outline
from jaxreg.model_selection._path import Path
from jaxreg.model_selection._selection import (
    InformationCriteria,
    StabilitySelection,
    ValidationCurve,
)
from jaxreg.solve._minimise import Fit

PROBLEM = jaxreg.solve.linear(np.eye(4, 3), np.array([3.0, 5.0, 7.0, 9.0]))
PATH = Path(
    strengths=jnp.array([2.0, 0.2, 0.02]),
    coefficients=jnp.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.5, 0.0, 0.5]]),
    intercepts=jnp.array([6.0, 5.0, 5.0]),
    nonzeros=jnp.array([0, 1, 2]),
    deviance_ratio=jnp.array([0.0, 0.4, 0.514]),
    stationarity=jnp.array([0.0, 1e-6, 2e-5]),
    converged=jnp.array([True, True, True]),
    problem=PROBLEM,
    penalty=jaxreg.L1(1.0),
    tolerance=1e-4,
)
FIT = Fit(
    params={"coefficients": jnp.array([0.0, 2.0]), "intercept": jnp.array(1.0)},
    converged=jnp.array(True),
    stationarity=jnp.array(2e-6),
    scale=jnp.array(0.1),
    objective=jnp.array(0.625),
    steps=jnp.array(5),
    reason=jnp.array(0),
)
CURVE = ValidationCurve(
    jnp.array([1.75, 1.25, 1.0]),
    jnp.array([0.5, 0.25, 0.125]),
    jnp.array(2),
    jnp.array(1),
)
CRITERIA = InformationCriteria(
    jnp.array([182.0, 166.0, 170.0]),
    jnp.array([185.0, 174.0, 190.0]),
    jnp.array([jnp.nan, 194.0, 192.0]),
)
STABLE = StabilitySelection(
    jnp.array([1.0, 0.5, 0.95]),
    jnp.array([True, False, True]),
    jnp.array(0.7),
    jnp.array(12),
)
RESULTS = {type(x).__name__: x for x in (PATH, FIT, CURVE, CRITERIA, STABLE)}


def test_a_path_prints_strengths_supports_and_convergence():
    assert str(PATH) == (
        "Path: 3 gaussian fits to 4 samples and 3 features\n"
        "penalty    L1(strength=1.0)\n"
        "strengths  2 to 0.02\n"
        "non-zeros  0 to 2 of 3\n"
        "deviance   0.0% to 51.4% explained\n"
        "converged  all; largest stationarity 2e-05, tolerance 0.0001"
    )


def test_a_path_prints_how_many_fits_did_not_converge():
    failed = PATH._replace(converged=jnp.array([True, False, True]))
    assert "converged  2 of 3;" in repr(failed)


def test_a_fit_prints_its_convergence_objective_and_support():
    assert str(FIT) == (
        "Fit: converged after 5 steps\n"
        "stationarity  2e-06 of the strength\n"
        "objective     0.625\n"
        "non-zeros     coefficients 1 of 2, intercept 1 of 1"
    )


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (1, "not converged after 5 steps, the most allowed"),
        (2, "not converged where rounding stops it, after 5 steps"),
        (3, "not converged, a number was not finite"),
    ],
)
def test_a_fit_prints_why_it_ended(reason, text):
    failed = FIT._replace(converged=jnp.array(False), reason=jnp.array(reason))
    assert text in str(failed)


def test_a_fit_of_many_leaves_prints_one_count():
    many = FIT._replace(params=[jnp.array([0.0, 1.0])] * 20)
    assert "non-zeros     20 of 40" in str(many)


def test_a_validation_curve_prints_both_selections():
    assert str(CURVE) == (
        "ValidationCurve: 3 strengths\n"
        "least               index 2, error 1 +- 0.12\n"
        "one standard error  index 1, error 1.25 +- 0.25"
    )


def test_criteria_print_their_smallest_finite_number():
    assert str(CRITERIA).splitlines() == [
        "InformationCriteria: 3 fits",
        "aic   166, least at index 1",
        "bic   174, least at index 1",
        "ebic  192, least at index 2",
    ]


def test_stability_prints_the_stable_units_and_the_bound():
    assert str(STABLE) == (
        "StabilitySelection: 2 of 3 units are stable\n"
        "units            0, 2\n"
        "false positives  0.7 expected at most\n"
        "strengths used   12"
    )


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_prints_the_shapes_of_tracers(name):
    texts = []

    def run(result):
        texts.extend([str(result), repr(result)])
        return result

    jax.jit(run)(RESULTS[name])
    jax.vmap(run)(jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), RESULTS[name]))
    for text in texts:
        assert text.startswith(f"{name}(") and "\n" not in text and len(text) < 900


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_of_many_fits_prints_its_shapes(name):
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), RESULTS[name])
    assert str(stacked) == outline(stacked)
    # JAX's own rebuilding of trees prints as well.
    assert str(jax.tree.map(lambda leaf: object(), RESULTS[name])).startswith(name)


def test_a_concrete_result_prints_its_lines_inside_jit():
    texts = []
    jax.jit(lambda x: texts.append(str(FIT)) or x)(1.0)
    assert texts == [str(FIT)]


def test_a_smaller_model_and_its_parts_show_what_print_shows():
    params = {"hidden": jnp.eye(3, 5), "out": jnp.eye(5, 2)}
    x = jnp.ones((2, 3))
    units = jaxreg.couplings(_two_layers, params, x)
    small = jaxreg.compact(units, params, x)
    for result in (units, small, jaxreg.summary(jaxreg.L1(1.0), params)):
        assert repr(result) == str(result)
        assert "\n" in str(result) and "Array(" not in str(result)


def _two_layers(params, x):
    return jax.nn.relu(x @ params["hidden"]) @ params["out"]
