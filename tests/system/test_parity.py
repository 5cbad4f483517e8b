"""Equivalents in Keras, jaxopt, Optax and scikit-learn: both sides of a row are run.

The rows are those of docs/migration.md, and the calls are the text that stands there.
Keras is written out in NumPy from the formulas of its documentation.
"""

import pathlib
import re
import types
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sklearn.linear_model

import jaxreg
from tests.laws.table import ROWS

with warnings.catch_warnings():
    # It says of itself, on every import, that it is no longer maintained.
    warnings.filterwarnings("ignore", "JAXopt is no longer", DeprecationWarning)
    import jaxopt

DOCS = pathlib.Path(__file__).parents[2] / "docs"
DOCUMENT = DOCS / "migration.md"
CATALOGUE = DOCS / "penalties.md", DOCS / "constraints.md"

KERAS = {
    "keras.regularizers.L1(s)(w)": "jaxreg.L1(s).value(w)",
    "keras.regularizers.L2(s)(w)": "jaxreg.L2(s).value(w)",
    "keras.regularizers.L1L2(s, t)(w)": "jaxreg.ElasticNet(s, t).value(w)",
    'keras.regularizers.OrthogonalRegularizer(s, "rows")(w)': (
        "jaxreg.Orthogonality(s / (m * (m - 1) / 2), group_axis=0).value(w)"
    ),
    'keras.regularizers.OrthogonalRegularizer(s, "columns")(w)': (
        "jaxreg.Orthogonality(s / (n * (n - 1) / 2), group_axis=1).value(w)"
    ),
    "keras.constraints.NonNeg()(w)": "jaxreg.NonNegative().prox(w, 1)",
    "keras.constraints.MaxNorm(r, axis=0)(w)": (
        "jaxreg.L2Ball(r, group_axis=1).prox(w, 1)"
    ),
    "keras.constraints.MinMaxNorm(q, r, rate=1, axis=0)(w)": (
        "jaxreg.MinMaxNorm(q, r, group_axis=1).prox(w, 1)"
    ),
    "keras.constraints.UnitNorm(axis=0)(w)": "jaxreg.UnitNorm(group_axis=1).prox(w, 1)",
}
PROXES = {
    "jaxopt.prox.prox_none(x, None, a)": "jaxreg.L1(0.0).prox(x, a)",
    "jaxopt.prox.prox_lasso(x, s, a)": "jaxreg.L1(s).prox(x, a)",
    "jaxopt.prox.prox_lasso(x, y, a)": (
        "jaxreg.weighted(jaxreg.L1(1.0), y).prox(x, a)"
    ),
    "jaxopt.prox.prox_non_negative_lasso(x, s, a)": (
        "jaxreg.nonnegative(jaxreg.L1(s)).prox(x, a)"
    ),
    "jaxopt.prox.prox_ridge(x, s, a)": "jaxreg.L2(s / 2).prox(x, a)",
    "jaxopt.prox.prox_non_negative_ridge(x, s, a)": (
        "jaxreg.nonnegative(jaxreg.L2(s / 2)).prox(x, a)"
    ),
    "jaxopt.prox.prox_elastic_net(x, (s, t), a)": (
        "jaxreg.ElasticNet(s, s * t / 2).prox(x, a)"
    ),
    "jax.vmap(lambda row: jaxopt.prox.prox_group_lasso(row, s, a))(w)": (
        "jaxreg.GroupLasso(s / n**0.5, group_axis=0).prox(w, a)"
    ),
    "jaxopt.prox.make_prox_from_projection(jaxopt.projection.projection_simplex)"
    "(x, r, a)": "jaxreg.Simplex(r).prox(x, a)",
}
PROJECTIONS = {
    "jaxopt.projection.projection_non_negative(x)": "jaxreg.NonNegative().prox(x, 1)",
    "jaxopt.projection.projection_box(x, (-y, y))": "jaxreg.Box(-y, y).prox(x, 1)",
    "jaxopt.projection.projection_hypercube(x, r)": "jaxreg.Box(0.0, r).prox(x, 1)",
    "jaxopt.projection.projection_linf_ball(x, r)": "jaxreg.Box(-r, r).prox(x, 1)",
    "jaxopt.projection.projection_simplex(x, r)": "jaxreg.Simplex(r).prox(x, 1)",
    "jaxopt.projection.projection_l1_ball(x, r)": "jaxreg.L1Ball(r).prox(x, 1)",
    "jaxopt.projection.projection_l2_ball(x, r)": "jaxreg.L2Ball(r).prox(x, 1)",
    "jaxopt.projection.projection_l2_sphere(x, r)": (
        "jaxreg.MinMaxNorm(r, r).prox(x, 1)"
    ),
    "optax.projections.projection_non_negative(x)": "jaxreg.NonNegative().prox(x, 1)",
    "optax.projections.projection_box(x, -y, y)": "jaxreg.Box(-y, y).prox(x, 1)",
    "optax.projections.projection_hypercube(x, r)": "jaxreg.Box(0.0, r).prox(x, 1)",
    "optax.projections.projection_linf_ball(x, r)": "jaxreg.Box(-r, r).prox(x, 1)",
    "optax.projections.projection_simplex(x, r)": "jaxreg.Simplex(r).prox(x, 1)",
    "optax.projections.projection_l1_ball(x, r)": "jaxreg.L1Ball(r).prox(x, 1)",
    "optax.projections.projection_l2_ball(x, r)": "jaxreg.L2Ball(r).prox(x, 1)",
    "optax.projections.projection_l2_sphere(x, r)": (
        "jaxreg.MinMaxNorm(r, r).prox(x, 1)"
    ),
}
DECAY = {
    "optax.add_decayed_weights(s)": "jaxreg.add_penalty_gradient(jaxreg.L2(s / 2))",
}
ESTIMATORS = {
    "sklearn.linear_model.Lasso(s)": "jaxreg.L1.from_sklearn(s)",
    "sklearn.linear_model.Ridge(s)": "jaxreg.L2.from_sklearn(s, samples=len(X))",
    "sklearn.linear_model.ElasticNet(s, l1_ratio=0.7)": (
        "jaxreg.ElasticNet.from_sklearn(s, 0.7)"
    ),
    "sklearn.linear_model.MultiTaskLasso(s)": (
        "jaxreg.GroupLasso.from_sklearn(s, outputs=Y.shape[1])"
    ),
}
NONE = {
    "jaxopt.projection.projection_l1_sphere",
    "jaxopt.projection.projection_sparse_simplex",
    "jaxopt.projection.projection_box_section",
    "jaxopt.projection.projection_hyperplane",
    "jaxopt.projection.projection_halfspace",
    "jaxopt.projection.projection_affine_set",
    "jaxopt.projection.projection_polyhedron",
    "jaxopt.projection.projection_transport",
    "jaxopt.projection.projection_birkhoff",
    "jaxopt.projection.kl_projection_transport",
    "jaxopt.projection.kl_projection_birkhoff",
    "optax.projections.projection_l1_sphere",
    "optax.projections.projection_hyperplane",
    "optax.projections.projection_halfspace",
    "optax.projections.projection_vector",
}
ARRAYS = {**KERAS, **PROXES, **PROJECTIONS}


def _scaled_to(norms, w):
    # Keras guards the division by its epsilon.
    return w * norms / (1e-7 + np.sqrt(np.sum(w**2, axis=0, keepdims=True)))


def _min_max_norm(low, high, rate, axis):
    assert rate == 1 and axis == 0

    def constrain(w):
        norms = np.sqrt(np.sum(w**2, axis=0, keepdims=True))
        return _scaled_to(np.clip(norms, low, high), w)

    return constrain


def _orthogonal(factor, mode):
    def regularize(w):
        rows = w if mode == "rows" else w.T
        rows = rows / np.sqrt(np.sum(rows**2, axis=1, keepdims=True))
        products = np.abs(rows @ rows.T)
        count = len(rows)
        off = 0.5 * (np.sum(products) - np.trace(products))
        return factor * off / (count * (count - 1) / 2)

    return regularize


KERAS_BY_ITS_FORMULAS = types.SimpleNamespace(
    regularizers=types.SimpleNamespace(
        L1=lambda s: lambda w: s * np.sum(np.abs(w)),
        L2=lambda s: lambda w: s * np.sum(w**2),
        L1L2=lambda s, t: lambda w: s * np.sum(np.abs(w)) + t * np.sum(w**2),
        OrthogonalRegularizer=_orthogonal,
    ),
    constraints=types.SimpleNamespace(
        NonNeg=lambda: lambda w: w * (w >= 0),
        MaxNorm=lambda r, axis: _min_max_norm(0.0, r, 1, axis),
        MinMaxNorm=_min_max_norm,
        UnitNorm=lambda axis: _min_max_norm(1.0, 1.0, 1, axis),
    ),
)


def run(call, **names):
    modules = {"jax": jax, "jaxopt": jaxopt, "jaxreg": jaxreg, "optax": optax}
    modules |= {"keras": KERAS_BY_ITS_FORMULAS, "sklearn": sklearn}
    return eval(call, {**modules, **names})


def named(call):
    return call.replace(".", "_")


@pytest.mark.parametrize("scale", [0.05, 1.0, 20.0])
@pytest.mark.parametrize(("theirs", "ours"), ARRAYS.items(), ids=map(named, ARRAYS))
def test_both_sides_of_a_row_give_the_same_numbers(theirs, ours, scale):
    rng = np.random.default_rng(0)
    x = scale * rng.normal(size=12).astype(np.float32)
    w = scale * rng.normal(size=(5, 3)).astype(np.float32)
    numbers = {"s": 0.3, "t": 0.6, "q": 0.4, "r": 1.5, "a": 0.5}
    names = {**numbers, "y": jnp.abs(jnp.asarray(x[::-1])), "m": 5, "n": 3}
    expected = run(theirs, x=jnp.asarray(x), w=w, **names)
    found = run(ours, x=jnp.asarray(x), w=jnp.asarray(w), **names)
    # Sorted sums of float32 on their side; Keras adds 1e-7 to a norm.
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6 * scale)


@pytest.mark.parametrize(("theirs", "ours"), DECAY.items())
def test_weight_decay_is_the_gradient_of_half_of_it(theirs, ours):
    params, grads = jnp.array([2.0, -1.0]), jnp.array([0.5, 0.0])
    found, expected = (
        tx.update(grads, tx.init(params), params)[0]
        for tx in (run(ours, s=0.1), run(theirs, s=0.1))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(("theirs", "ours"), ESTIMATORS.items())
def test_the_answer_of_scikit_learn_is_stationary_for_ours(theirs, ours):
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(40, 6))
    answers = inputs @ rng.normal(size=(6, 3)) + rng.normal(size=(40, 3))
    estimator = run(theirs, s=0.5)
    is_one = "MultiTask" not in theirs
    estimator.set_params(fit_intercept=False, tol=1e-12)
    coef = estimator.fit(inputs, answers[:, 0] if is_one else answers).coef_.T
    grads = inputs.T @ (inputs @ coef - (answers[:, 0] if is_one else answers)) / 40
    with jax.enable_x64(True):
        misses = [
            run(ours, s=strength, X=inputs, Y=answers).stationarity(coef, grads)
            for strength in (0.5, 0.25)
        ]
        right, wrong = (float(jnp.max(jnp.abs(miss))) for miss in misses)
    # scikit-learn stops at a duality gap of 1e-12 of the squared answers.
    assert right < 1e-6
    assert wrong > 1e-3


def document_rows():
    """The calls of both columns, for every row of a table of the document."""
    found = re.findall(r"^\| `(.+?)` \| (.+?) \|", DOCUMENT.read_text(), re.MULTILINE)
    return {theirs: ours.strip("`") for theirs, ours in found}


def test_the_rows_of_the_document_are_the_rows_run_here():
    rows = document_rows()
    without = {call for call, ours in rows.items() if ours == "none"}
    assert without == NONE
    assert {call: rows[call] for call in rows.keys() - without} == {
        **ARRAYS,
        **DECAY,
        **ESTIMATORS,
    }


@pytest.mark.parametrize(
    "module", [jaxopt.prox, jaxopt.projection, optax.projections], ids=str
)
def test_every_function_of_their_modules_has_a_row(module):
    public = (name for name in dir(module) if not name.startswith("_"))
    functions = {
        f"{module.__name__}.{name}"
        for name in public
        if isinstance(getattr(module, name), types.FunctionType)
    }
    calls = " ".join([*ARRAYS, *NONE])
    known = set(re.findall(r"(?:jaxopt|optax)\.\w+\.\w+", calls))
    assert functions <= known


def catalogue_rows():
    """Per table row of those pages the name it begins with, and its cells."""
    text = "\n".join(page.read_text() for page in CATALOGUE)
    lines = re.findall(r"^\| (`\w.*)", text, re.MULTILINE)
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    return [(re.match(r"`(\w+)", cells[0])[1], cells) for cells in rows]


def test_every_penalty_has_its_row_in_the_catalogue():
    public = {
        name
        for name in jaxreg.__all__
        if isinstance(getattr(jaxreg, name), type)
        and issubclass(getattr(jaxreg, name), jaxreg.Penalty)
    }
    bases = {"Penalty", "Leafwise", "Elementwise", "Constraint"}
    assert public - bases <= {name for name, _ in catalogue_rows()}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_catalogue_page_states_convexity_and_varying_steps(row):
    penalty = row.penalty
    own = [cells for name, cells in catalogue_rows() if name == type(penalty).__name__]
    told = {(cells[2], cells[3]) for cells in own if cells[2] in ("yes", "no")}
    convex, steps = (
        ("no", "yes")[penalty.facts.is_convex],
        ("one", "any")[penalty.facts.varying_step],
    )
    assert not told or (convex, steps) in told
