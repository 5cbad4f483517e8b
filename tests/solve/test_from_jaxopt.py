"""docs/from_jaxopt.md: jaxopt's solvers and `minimise` end at the same solutions."""

import inspect
import pathlib
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Lasso
from sklearn.svm import LinearSVC

import jaxreg

with warnings.catch_warnings():
    # It says of itself, on every import, that it is no longer maintained.
    warnings.filterwarnings("ignore", "JAXopt is no longer", DeprecationWarning)
    import jaxopt
    from jaxopt import objective, projection, prox

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "from_jaxopt.md").read_text()
OPERATORS = re.findall(
    r"^\| `((?:prox|projection)\.\w+)` \| `(.+?)` \| `(.+?)` \|", PAGE, re.MULTILINE
)
SAMPLES, FEATURES, TASKS = 30, 8, 3
TIGHT = {"tol": 1e-11, "maxiter": 20_000}


def squares(w, x, y):
    return jnp.mean((x @ w - y) ** 2) / 2


@pytest.fixture
def data(x64):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(SAMPLES, FEATURES))
    y = x[:, :TASKS] * [2.0, -1.0, 0.5] + generator.normal(size=(SAMPLES, TASKS)) / 3
    return jnp.asarray(x), jnp.asarray(y)


def ours(loss, penalty, start, data):
    return jaxreg.minimise(loss, penalty, start, data=data, tolerance=1e-9).params


@pytest.mark.parametrize(("theirs", "number", "penalty"), OPERATORS)
def test_an_operator_of_the_page_is_the_prox_beside_it(theirs, number, penalty):
    x = jnp.asarray(np.random.default_rng(0).normal(size=12), jnp.float32)
    names = {"x": x, "y": jnp.abs(x[::-1]), "s": 0.3, "t": 0.6, "r": 1.5}
    operator = eval(theirs, {"prox": prox, "projection": projection})
    step = (0.5,) if theirs.startswith("prox") else ()
    expected = operator(x, eval(number, names), *step)
    found = eval(penalty, {**vars(jaxreg), **names}).prox(x, 0.5)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)


def test_every_solver_with_a_penalty_or_constraint_has_a_row():
    arguments = {"prox", "block_prox", "projection", "projection_grad"}
    constrained = {
        name
        for name, solver in vars(jaxopt).items()
        if inspect.isclass(solver)
        and (
            arguments & set(inspect.signature(solver).parameters)
            or "bounds" in str(inspect.signature(getattr(solver, "init_state", solver)))
            or re.search("Bounded|QP", name)
        )
    }
    # It has the argument prox from its parent class.
    constrained -= {"GradientDescent"}
    assert {"ProximalGradient", "LBFGSB", "BoxCDQP"} <= constrained
    assert constrained <= set(re.findall(r"\w+", PAGE.split("| option")[0]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operator", "number", "penalty"),
    [
        (prox.prox_lasso, 0.1, jaxreg.L1(0.1)),
        (prox.prox_elastic_net, (0.1, 0.5), jaxreg.ElasticNet(0.1, 0.025)),
        (projection.projection_simplex, 1.5, jaxreg.Simplex(1.5)),
    ],
    ids=["lasso", "elastic net", "simplex"],
)
def test_solutions_of_one_task_are_the_same(operator, number, penalty, data):
    data = data[0], jnp.sum(data[1], axis=1)
    is_prox = operator.__name__.startswith("prox")
    solver = jaxopt.ProximalGradient if is_prox else jaxopt.ProjectedGradient
    start = jnp.zeros(FEATURES)
    theirs = solver(squares, operator, **TIGHT).run(start, number, *data).params
    found = ours(squares, penalty, start, data)
    np.testing.assert_allclose(found, theirs, atol=1e-6)
    assert (theirs == 0).any()
    if operator is prox.prox_lasso:
        estimator = Lasso(alpha=number, fit_intercept=False, tol=1e-13).fit(*data)
        np.testing.assert_allclose(found, estimator.coef_, atol=1e-6)


@pytest.mark.slow
def test_the_group_lasso_is_the_same(data):
    per_row = jax.vmap(prox.prox_group_lasso, in_axes=(0, None, None))
    start = jnp.zeros((FEATURES, TASKS))
    solver = jaxopt.ProximalGradient(squares, per_row, **TIGHT)
    theirs = solver.run(start, 0.3, *data).params
    penalty = jaxreg.GroupLasso(0.3 / TASKS**0.5, group_axis=0)
    np.testing.assert_allclose(ours(squares, penalty, start, data), theirs, atol=1e-6)
    assert (theirs == 0).all(axis=1).any()


@pytest.mark.slow
def test_the_dual_of_a_support_vector_machine_is_the_same(data):
    x, labels = data[0][:, :4], jax.nn.one_hot(jnp.argmax(data[1], axis=1), TASKS)
    labels = labels.astype(x.dtype)
    svm, start = objective.multiclass_linear_svm_dual, jnp.full((SAMPLES, TASKS), 1 / 3)
    block_prox = prox.make_prox_from_projection(projection.projection_simplex)
    solver = jaxopt.BlockCoordinateDescent(svm, block_prox, tol=1e-9, maxiter=2000)
    theirs = solver.run(start, None, 1.0, (x, labels)).params
    found = ours(svm, jaxreg.Simplex(group_axis=0), start, (1.0, (x, labels)))
    least = svm(theirs, 1.0, (x, labels))
    assert float(svm(found, 1.0, (x, labels))) == pytest.approx(float(least), rel=1e-9)
    # Unique, which the dual variables need not be.
    weights, expected = (x.T @ (labels - beta) for beta in (found, theirs))
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    machine = LinearSVC(
        C=1.0, multi_class="crammer_singer", fit_intercept=False, tol=1e-10
    ).fit(x, jnp.argmax(labels, axis=1))
    np.testing.assert_allclose(weights.T, machine.coef_, atol=1e-4)


@pytest.mark.slow
def test_factors_together_are_no_worse_than_alternating(x64):
    generator = np.random.default_rng(1)
    left, right, noise = (
        jnp.asarray(generator.uniform(size=shape))
        for shape in [(12, 3), (3, 9), (12, 9)]
    )
    pixels = left @ right + noise / 10
    left, right = left + 0.3, right[::-1] + 0.3

    def misfit(factors, pixels):
        return jnp.mean((factors[0] @ factors[1] - pixels) ** 2) / 2

    fit = jaxreg.minimise(
        misfit, jaxreg.NonNegative(), (left, right), data=(pixels,), tolerance=1e-6
    )
    solver = jaxopt.BlockCoordinateDescent(
        objective.least_squares, prox.prox_non_negative_ridge, tol=1e-8, maxiter=50
    )

    @jax.jit
    def alternate(left, right):
        right = solver.run(right, 0.0, (left, pixels)).params
        return solver.run(left.T, 0.0, (right.T, pixels.T)).params.T, right

    for _ in range(300):
        left, right = alternate(left, right)
    assert fit.converged
    assert all((factor >= 0).all() for factor in fit.params)
    # Each at a stationary point of a problem that is not convex.
    assert float(fit.objective) <= 1.001 * float(misfit((left, right), pixels))


@pytest.mark.slow
def test_the_derivative_by_the_strength_is_the_same(data):
    x, y = data[0], data[1][:, 0]
    start, half = jnp.zeros(FEATURES), SAMPLES // 2
    train, test = (x[:half], y[:half]), (x[half:], y[half:])
    solver = jaxopt.ProximalGradient(squares, prox.prox_lasso, **TIGHT)

    def theirs(strength):
        return squares(solver.run(start, strength, *train).params, *test)

    @jax.jit
    def validation(strength):
        return squares(ours(squares, jaxreg.L1(strength), start, train), *test)

    slope = float(jax.grad(validation)(0.1))
    step = 1e-5
    difference = float(validation(0.1 + step) - validation(0.1 - step)) / (2 * step)
    assert slope == pytest.approx(difference, rel=1e-5)
    assert slope == pytest.approx(float(jax.grad(theirs)(0.1)), rel=1e-5)
